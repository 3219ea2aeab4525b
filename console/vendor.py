"""Copies the console's libraries out of what npm installed: ``python console/vendor.py``.

First ``npm ci --prefix console``, which installs what console/package-lock.json names and checks it
by the lock's digests. ``--check`` copies nothing, and says which files differ.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).parent
INSTALLED = HERE / "node_modules"
VENDORED = HERE.parent / "serving" / "console" / "vendor"

FILES = {
    "preact/preact.min.umd.js": "preact/dist/preact.min.umd.js",
    "preact/hooks.umd.js": "preact/hooks/dist/hooks.umd.js",
    "preact/LICENSE": "preact/LICENSE",
    "htm/htm.umd.js": "htm/dist/htm.umd.js",
    "htm/LICENSE": "htm/LICENSE",
    "uplot/uPlot.iife.min.js": "uplot/dist/uPlot.iife.min.js",
    "uplot/uPlot.min.css": "uplot/dist/uPlot.min.css",
    "uplot/LICENSE": "uplot/LICENSE",
}
"""Where each file goes, and where its package has it."""


def differing(vendored: Path = VENDORED, installed: Path = INSTALLED) -> list[str]:
    """Files that are not as their package has them, that are missing, or that are of no package."""
    found = {
        path.relative_to(vendored).as_posix() for path in vendored.rglob("*") if path.is_file()
    }
    return sorted(
        name
        for name in found | set(FILES)
        if name not in FILES
        or name not in found
        or (vendored / name).read_bytes() != (installed / FILES[name]).read_bytes()
    )


def main() -> int:
    """Copy, or compare."""
    parser = argparse.ArgumentParser(prog="python console/vendor.py", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say what differs")
    if not INSTALLED.is_dir():
        sys.exit("console/node_modules is missing: run `npm ci --prefix console` first")
    if not parser.parse_args().check:
        for name, source in FILES.items():
            (VENDORED / name).parent.mkdir(parents=True, exist_ok=True)
            (VENDORED / name).write_bytes((INSTALLED / source).read_bytes())
    wrong = differing()
    for name in wrong:
        sys.stderr.write(
            f"serving/console/vendor/{name} is not what console/package-lock.json has\n"
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
