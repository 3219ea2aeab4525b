"""``python -m tests.fuzz --cases 20000``: starts a service and fuzzes it, or sends one case again.

The service has the demo's models in the few variants that the fuzzers name.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import psutil
import yaml

from serving.demo import DEMO_CONFIG
from tests.fuzz.campaign import run
from tests.fuzz.wire import make_case, run_case
from tests.integration.demo_service import KEY
from tests.integration.running_service import running_service

VARIANTS = {
    "minilm": ("fp32", "int8-dynamic", "int4"),
    "sentiment": ("fp32", "bf16", "int8-dynamic", "int4"),
    "smollm2": ("fp32", "int8-dynamic", "int4"),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, help="of all cases; any one if not given")
    parser.add_argument("--replay", metavar="SEED", help="send the bytes of this case alone")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else int(time.time())
    with tempfile.TemporaryDirectory() as folder:
        config = _configuration(Path(folder))
        log = Path(folder, "service.log")
        with running_service(config, log, {"QUANTSERVE_SERVER__API_KEY": KEY}) as service:
            if given.replay:
                case = make_case(given.replay, KEY)
                print(*case.parts, sep="\n")  # noqa: T201
                print(run_case(case, ("127.0.0.1", service.port)))  # noqa: T201
                return 0
            print(f"seed {seed}", flush=True)  # noqa: T201
            begun = time.monotonic()
            report = run(service.url, KEY, psutil.Process(service.process.pid), given.cases, seed)
            print(*report.lines(), f"{time.monotonic() - begun:.0f} s", sep="\n")  # noqa: T201
    return 1 if report.faults else 0


def _configuration(folder: Path) -> Path:
    document = yaml.safe_load(DEMO_CONFIG.read_text())
    for model in document["models"]:
        kept = VARIANTS[model["name"]]
        model["variants"] = [
            one
            for one in model["variants"]
            if (one["name"] if isinstance(one, dict) else one) in kept
        ]
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


if __name__ == "__main__":
    sys.exit(main())
