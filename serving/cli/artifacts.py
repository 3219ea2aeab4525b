"""``quantserve artifacts``: what the store holds, and what of it can go."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from serving.artifacts import ArtifactStore, key_of
from serving.artifacts.pruning import StoredArtifact, beyond_size, survey, unused_since
from serving.cli.console import clean_errors, mebibytes, new_table, out, short_id
from serving.cli.planning import load_plan
from serving.config import ArtifactsConfig
from serving.errors import ConfigError, DamagedArtifact, MayPass
from serving.settings import ENV_PREFIX

DAY_S = 24 * 60 * 60
GIB = 1024**3

FOLDER_VARIABLE = f"{ENV_PREFIX}ARTIFACTS__FOLDER"

Folder = Annotated[
    Path, typer.Option(help="The store, as artifacts.folder names it.", envvar=FOLDER_VARIABLE)
]
DEFAULT_FOLDER = Path(ArtifactsConfig().folder)

artifacts_app = typer.Typer(
    help="List and remove what variants are opened from.", no_args_is_help=True
)


@artifacts_app.command("list")
def list_command(folder: Folder = DEFAULT_FOLDER) -> None:
    """Print every artifact, the least recently used first."""
    with clean_errors():
        store = _existing_store(folder)
        stored = survey(store)
        out.print(store_table(store, stored))
        out.print(f"{len(stored)} artifacts, {mebibytes(sum(one.size for one in stored))} MiB")


@artifacts_app.command("remove")
def remove_command(
    ids: Annotated[list[str], typer.Argument(help="Ids, or the beginnings of them.")],
    folder: Folder = DEFAULT_FOLDER,
) -> None:
    """Remove artifacts. A replica that has one open keeps it; the next start makes it anew."""
    with clean_errors():
        store = _existing_store(folder)
        _remove(store, [store.resolve(start) for start in ids])


@artifacts_app.command("prune")
def prune_command(
    older_than: Annotated[
        float | None, typer.Option(help="Remove what was not used for so many days.", min=0)
    ] = None,
    max_size: Annotated[
        float | None,
        typer.Option(help="Remove the least recently used until so many GiB are left.", min=0),
    ] = None,
    unused: Annotated[
        list[Path] | None,
        typer.Option(help="Remove what none of these configurations uses here and now."),
    ] = None,
    folder: Folder = DEFAULT_FOLDER,
) -> None:
    """Remove the artifacts that any of the options names, and what builders left that died."""
    with clean_errors():
        if older_than is None and max_size is None and not unused:
            raise ConfigError("say what may go: --older-than DAYS, --max-size GiB, --unused CONFIG")
        store = _existing_store(folder)
        stored = survey(store)
        going: list[str] = []
        if older_than is not None:
            going += unused_since(stored, time.time() - older_than * DAY_S)
        if unused:
            used = {artifact_id for config in unused for artifact_id in _used_by(config, store)}
            going += [one.id for one in stored if one.id not in used]
        if max_size is not None:
            staying = [one for one in stored if one.id not in going]
            going += beyond_size(staying, max_size * GIB)
        _remove(store, list(dict.fromkeys(going)))
        store.clean()


def store_table(store: ArtifactStore, stored: list[StoredArtifact]) -> Table:
    """One row per artifact."""
    table = new_table(
        str(store.folder),
        ["id", "model, recipe, runtime, device", "last used"],
        ["MiB"],
    )
    table.columns[2].no_wrap = True
    for one in stored:
        used = datetime.fromtimestamp(one.last_used, UTC).strftime("%Y-%m-%d")
        try:
            artifact = store.look_up(one.id)
        except DamagedArtifact as error:
            table.add_row(short_id(one.id), escape(f"damaged: {error}"), used, "–")
            continue
        except MayPass as error:
            table.add_row(short_id(one.id), escape(str(error)), used, "–")
            continue
        if artifact is None:  # removed meanwhile
            continue
        manifest, key = artifact.manifest, artifact.manifest.key
        what = [manifest.made_for, key.recipe, key.runtime, key.device]
        if (agreement := manifest.agreement) is not None:
            what.append(f"{agreement.measure} {agreement.value:.4f}")
        table.add_row(
            short_id(one.id),
            escape(", ".join(what)),
            used,
            mebibytes(one.size),
        )
    return table


def _used_by(config: Path, store: ArtifactStore) -> list[str]:
    _, plan = load_plan(config)
    asked = [planned.artifact for planned in plan.variants]
    references = [request.floor.reference for request in asked if request.floor is not None]
    return [key_of(request, store).id for request in (*asked, *references)]


def _remove(store: ArtifactStore, ids: list[str]) -> None:
    sizes = {one.id: one.size for one in survey(store)}
    for artifact_id in ids:
        store.remove(artifact_id)
        out.print(f"removed {short_id(artifact_id)}, {mebibytes(sizes.get(artifact_id))} MiB")
    out.print(f"{len(ids)} artifacts removed")


def _existing_store(folder: Path) -> ArtifactStore:
    """Open a store without making one: a mistyped folder would look like an empty store."""
    if not folder.expanduser().exists():
        raise ConfigError(f"{folder}: there is no store; `quantserve prepare` makes it")
    return ArtifactStore(folder)
