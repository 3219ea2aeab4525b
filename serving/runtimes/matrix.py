"""What works here: recipe × runtime × kind of engine × device. Nothing heavy is imported."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from serving.errors import ConfigError
from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES
from serving.seams import Combination, DeviceName, EngineKind, Runtime


def why_not(combination: Combination, runtime_name: str) -> str | None:
    """Why a runtime cannot do a combination on this machine; None if it can.

    Whether the machine has the device is not asked: see ``serving.machine.device``.

    Raises:
        ConfigError: The recipe or the runtime is unknown, or cannot be imported.
    """
    recipe, runtime = RECIPES[combination.recipe], RUNTIMES[runtime_name]
    expectation = recipe.encoder if combination.kind == "encoder" else recipe.generator
    if expectation is None:
        return f"no {combination.kind}s in {combination.recipe}"
    if combination.kind == "generator" and runtime.open_generator is None:
        return f"no generators on {runtime_name}"
    if missing := missing_packages(runtime):
        return f"needs {installation(runtime, missing)}"
    if combination.device not in runtime.devices:
        return f"no {combination.device} on {runtime_name}"
    if combination.kv_cache not in runtime.kv_caches:
        return f"kv_cache on {runtime_name} is {' or '.join(runtime.kv_caches)}"
    if (reason := _why_not_adapter(combination, runtime_name)) is not None:
        return reason
    return runtime.why_not(combination)


def _why_not_adapter(combination: Combination, runtime_name: str) -> str | None:
    if combination.adapter is None:
        return None
    if combination.format != "safetensors":
        return "an adapter is added to weights in safetensors"
    if combination.recipe == "stored":
        return "stored keeps the checkpoint's own numbers, which an adapter changes"
    places = RUNTIMES[runtime_name].adapter_places
    if combination.adapter not in places:
        return f"adapters on {runtime_name} are {' or '.join(places)}"
    return None


def describe_possible(combination: Combination, runtime_name: str) -> str:
    """What would be possible instead: the recipe on other runtimes, other recipes on this one."""
    runtimes = [
        name for name in RUNTIMES if name != runtime_name and _is_possible(combination, name)
    ]
    recipes = [
        name
        for name in RECIPES
        if name != combination.recipe
        and _is_possible(replace(combination, recipe=name), runtime_name)
    ]
    kinds = _kinds(runtime_name, combination.device)
    if kinds and combination.kind not in kinds:
        elsewhere = f"; recipe {combination.recipe!r} works on: {', '.join(runtimes)}"
        only = f"runtime {runtime_name!r} serves {' and '.join(kinds)}s only"
        return only + (elsewhere if runtimes else "")
    return (
        f"recipe {combination.recipe!r} works on: {', '.join(runtimes) or 'no other runtime'}; "
        f"runtime {runtime_name!r} can: {', '.join(recipes) or 'no other recipe'}"
    )


def missing_packages(runtime: Runtime) -> list[str]:
    """Packages that a runtime needs to prepare and to run, and that are not installed."""
    needed = (*runtime.packages, *runtime.preparing_packages)
    return [package for package in needed if installed_version(package) is None]


@cache
def installed_version(package: str) -> str | None:
    """Version of an installed package when it was first asked for; None if it is not installed.

    A look reads the package's files, and all sizes of a source ask some 350 times.
    """
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def installation(runtime: Runtime, missing: list[str]) -> str:
    """The command that brings what a runtime lacks."""
    if runtime.extra is not None:
        return f"pip install 'quantserve[{runtime.extra}]'"
    return f"pip install {' '.join(missing)}"


def _kinds(runtime_name: str, device: DeviceName) -> list[EngineKind]:
    """What a runtime serves at all, whatever the recipe and the checkpoint."""
    every: tuple[EngineKind, ...] = ("encoder", "generator")
    return [
        kind
        for kind in every
        if any(
            _is_possible(Combination(recipe, kind, device, "safetensors"), runtime_name)
            for recipe in RECIPES
        )
    ]


def _is_possible(combination: Combination, runtime_name: str) -> bool:
    try:
        return why_not(combination, runtime_name) is None
    except ConfigError:  # of a package of somebody else's
        return False
