"""What the routes stand on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from fastapi import Request

from serving.config import ServerConfig
from serving.seams import Backends, QualityBoard, ServedModel, VariantChooser
from serving.seams.live import LiveFeed


@dataclass(frozen=True, slots=True)
class Services:
    """What the routes stand on, in the gateway as in a replica.

    Attributes:
        catalog: The models that can be chosen, by name.
        backends: Where their backends are found.
        server: Limits and key.
        fixed: The model and variant that the path has chosen already, in a replica.
        board: Where quality is known; None in a replica.
        chooser: Chooses where a request says ``auto``; None in a replica.
        live: Tells what moves; None in a replica.
        reports: Folder of load tests' results; None in a replica.
    """

    catalog: Mapping[str, ServedModel]
    backends: Backends
    server: ServerConfig
    fixed: tuple[str, str] | None = None
    board: QualityBoard | None = None
    chooser: VariantChooser | None = None
    live: LiveFeed | None = None
    reports: Path | None = None


def services_of(request: Request) -> Services:
    """Return the services of the application that got ``request``."""
    return cast(Services, request.app.state.services)
