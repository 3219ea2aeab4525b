"""Shows a load test in the terminal while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from loadtests.scenario_run import Observe, TurnName
from loadtests.turn import Moment


@contextmanager
def live(console: Console) -> Iterator[Observe]:
    """One line that changes once a second, and one that stays for every turn."""
    shown: dict[TurnName, Moment] = {}
    # No thread of its own: it would hold up the sends.
    with Live(console=console, auto_refresh=False, transient=True) as display:

        def observe(name: TurnName, moment: Moment) -> None:
            if shown and name not in shown:
                console.print(_line(*shown.popitem()))
            shown[name] = moment
            display.update(_line(name, moment), refresh=True)

        yield observe
    if shown:
        console.print(_line(*shown.popitem()))


def _line(name: TurnName, moment: Moment) -> Text:
    latency = "–" if moment.latency_s is None else f"{moment.latency_s * 1e3:,.1f} ms"
    elapsed = min(moment.elapsed_s, name.duration_s)
    time_ = "warm-up" if elapsed < 0 else f"{elapsed:3.0f}/{name.duration_s:.0f} s"
    errors = f"[red]{moment.errors} errors[/]" if moment.errors else "no errors"
    return Text.from_markup(
        f"{escape(name.scenario)} [bold]{escape(name.variant)}[/] {name.stage}, {time_}: "
        f"{moment.rate:,.0f}/s, {latency}, {moment.in_flight} in flight, {errors}"
    )
