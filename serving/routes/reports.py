"""``/v1/reports``: what load tests wrote into the configured folder, and how two of them differ."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response

from serving.errors import InternalError, InvalidField, QueueFull, Unknown
from serving.routes.json_response import json_response
from serving.routes.quality import check_query
from serving.routes.services import Services, services_of

router = APIRouter(prefix="/v1/reports", tags=["reports"])

RESULTS, PAGE = "results.json", "report.html"

MOST_REPORTS = 200
"""Of those that were written last."""

MOST_BYTES = 64 * 2**20
"""A file that is larger is none of a load test."""

COMPARING_S = 120.0
RETRY_AFTER_S = 5

POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Of a report that is opened by itself: it runs nothing and asks for nothing."""

_comparing = asyncio.Lock()
"""One at a time: each takes a core for seconds."""


@dataclass(frozen=True, slots=True)
class Report:
    """A load test, as the list shows it.

    Attributes:
        name: Of its folder.
        problems: Why its figures are not valid, in words.
        has_page: Whether its report is there to be opened.
    """

    name: str
    started_at: str
    wall_s: float
    url: str
    scenarios: tuple[str, ...]
    models: tuple[str, ...]
    problems: tuple[str, ...]
    has_page: bool


@router.get("")
async def reports(request: Request) -> Response:
    """Every load test whose results lie in a folder of the configured folder, the latest first.

    Where that folder is on the machine is nobody's business here: names are of folders in it.
    """
    check_query(request)
    folder = _folder(services_of(request))
    found = await asyncio.to_thread(find_reports, folder)
    return json_response({"object": "list", "data": [asdict(one) for one in found]})


@router.get("/page")
async def page(request: Request, name: str) -> Response:
    """The report of one load test, as HTML."""
    check_query(request, "name")
    folder = await _find(request, "name", name)
    path = folder / PAGE
    if not path.is_file():
        raise Unknown(f"{name} has no {PAGE}; `quantserve report {name}` writes it", param="name")
    content = await asyncio.to_thread(path.read_bytes)
    return _html(content)


@router.get("/changes")
async def changes(request: Request, before: str, after: str) -> Response:
    """What changed from one load test to a later one beyond noise, as HTML."""
    check_query(request, "before", "after")
    runs = [
        await _find(request, field, name) for field, name in (("before", before), ("after", after))
    ]
    if _comparing.locked():
        raise QueueFull("two load tests are being compared already", retry_after_s=RETRY_AFTER_S)
    async with _comparing:
        return _html(await compare(*runs))


async def compare(before: Path, after: Path) -> bytes:
    """The page of ``quantserve report BEFORE AFTER``, made by a process of its own.

    Its plots and tests take libraries and memory that a gateway shall not have.

    Raises:
        InvalidField: The two cannot be compared; the command's own words.
        InternalError: It did not end in time.
    """
    with tempfile.TemporaryDirectory() as out:
        command = (sys.executable, "-m", "loadtests.report", str(before), str(after), "--out", out)
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(COMPARING_S):
                _, said = await process.communicate()
        except TimeoutError:
            raise InternalError(f"comparing took longer than {COMPARING_S:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            words = said.decode(errors="replace").strip().removeprefix("error: ")
            words = words.replace(f"{before.parent}/", "")
            raise InvalidField(f"they cannot be compared: {words}", param="after")
        return await asyncio.to_thread(Path(out, "comparison.html").read_bytes)


def find_reports(folder: Path) -> list[Report]:
    """Every load test of a folder, the latest first; what is no load test is passed over."""
    paths = [path for path in folder.glob(f"*/{RESULTS}") if _is_inside(folder, path)]
    paths.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    found = [report for path in paths[:MOST_REPORTS] if (report := _read(path)) is not None]
    return sorted(found, key=lambda report: report.started_at, reverse=True)


def _read(path: Path) -> Report | None:
    try:
        if path.stat().st_size > MOST_BYTES:
            return None
        results: Mapping[str, Any] = json.loads(path.read_bytes())
        scenarios = results["scenarios"]
        return Report(
            name=path.parent.name,
            started_at=str(results["started_at"]),
            wall_s=float(results["wall_s"]),
            url=str(results["plan"]["target"]["url"]),
            scenarios=tuple(str(scenario["name"]) for scenario in scenarios),
            models=tuple(dict.fromkeys(str(scenario["model"]) for scenario in scenarios)),
            problems=tuple(str(problem) for problem in results["problems"]),
            has_page=(path.parent / PAGE).is_file(),
        )
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _is_inside(folder: Path, path: Path) -> bool:
    """Whether a file lies there in truth, and not behind a link that leads elsewhere."""
    return path.resolve().is_relative_to(folder.resolve())


async def _find(request: Request, field: str, name: str) -> Path:
    """The folder of a load test that the list has; no other path is ever opened."""
    folder = _folder(services_of(request))
    known = {one.name for one in await asyncio.to_thread(find_reports, folder)}
    if name not in known:
        raise Unknown(f"no load test {name!r} in the folder of reports", param=field)
    return folder / name


def _folder(services: Services) -> Path:
    if services.reports is None:
        raise Unknown("no folder of reports is configured here")
    return services.reports


def _html(content: bytes) -> Response:
    headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
    return Response(content, media_type="text/html; charset=utf-8", headers=headers)
