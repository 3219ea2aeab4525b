"""The libraries are files of the packages that the lock names, with their licences."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONSOLE = ROOT / "console"
VENDORED = ROOT / "serving" / "console" / "vendor"


def test_versions_are_pinned_and_the_lock_has_their_digests() -> None:
    package = json.loads((CONSOLE / "package.json").read_text())
    lock = json.loads((CONSOLE / "package-lock.json").read_text())["packages"]
    wanted = package["dependencies"] | package["devDependencies"]
    assert set(package["dependencies"]) == {folder.name for folder in VENDORED.iterdir()}
    for name, version in wanted.items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)
        assert lock[f"node_modules/{name}"]["version"] == version
        assert lock[f"node_modules/{name}"]["integrity"].startswith("sha512-")


def test_each_has_its_licence() -> None:
    for folder in VENDORED.iterdir():
        assert re.search("MIT|Apache", (folder / "LICENSE").read_text())


def test_types_are_right_and_files_are_those_of_the_lock() -> None:
    done = subprocess.run([CONSOLE / "check"], capture_output=True, text=True, check=False)
    if "are missing, which check" in done.stderr and not os.environ.get("CI"):
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_changed_file_is_found(tmp_path: Path) -> None:
    if not (CONSOLE / "node_modules").is_dir():
        pytest.skip("console/node_modules is missing: run `console/check`")
    from console.vendor import FILES, differing

    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((VENDORED / name).read_bytes())
    assert differing(tmp_path) == []
    (tmp_path / "htm" / "htm.umd.js").write_text("changed")
    (tmp_path / "htm" / "other.js").write_text("of nobody")
    (tmp_path / "uplot" / "LICENSE").unlink()
    assert differing(tmp_path) == ["htm/htm.umd.js", "htm/other.js", "uplot/LICENSE"]
