"""How much memory a machine, or a container on it, has left."""

from pathlib import Path

import psutil
import pytest

from serving.machine.memory import available_bytes


@pytest.mark.parametrize(
    ("limit", "used", "expected"),
    [("max", "5", 1000), ("600", "200", 450), ("5000", "200", 1000), (None, None, 1000)],
)
def test_a_container_s_limit_counts_where_it_is_smaller(
    monkeypatch, limit: str | None, used: str | None, expected: int
) -> None:
    statistics = "anon 120\nfile 80\ninactive_file 50"
    files = {"memory.max": limit, "memory.current": used, "memory.stat": statistics}

    def read_text(self: Path) -> str:
        content = files[self.name]
        if content is None:
            raise FileNotFoundError(self)
        return f"{content}\n"

    class Machine:
        available = 1000

    monkeypatch.setattr(psutil, "virtual_memory", Machine)
    monkeypatch.setattr(Path, "read_text", read_text)
    assert available_bytes() == expected
