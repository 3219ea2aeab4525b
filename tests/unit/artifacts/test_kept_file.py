"""What can be found anew is kept whole, or not at all."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving.artifacts.kept_file import keep


@contextmanager
def no_file_may_grow() -> Iterator[None]:
    """Files can be made, and nothing can be written to them, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_is_kept_replaces_what_was(tmp_path: Path) -> None:
    file = tmp_path / "times.json"
    for content in ("first", "second, longer", "3"):
        keep(file, content)
        assert file.read_text() == content
    assert list(tmp_path.iterdir()) == [file]


def test_a_full_disk_keeps_what_was_and_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "times.json"
    keep(file, "first")
    with no_file_may_grow():
        keep(file, "second")
    assert file.read_text() == "first"
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_that_is_gone_keeps_nothing(tmp_path: Path) -> None:
    keep(tmp_path / "gone" / "times.json", "first")
    assert list(tmp_path.iterdir()) == []
