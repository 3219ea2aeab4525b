from __future__ import annotations

import pytest

from serving.cores.shares import share


@pytest.mark.parametrize("num_cores", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("num_active", [1, 2, 3, 5, 8, 64])
def test_every_core_has_one_holder_and_every_replica_at_least_one(num_cores, num_active) -> None:
    shares = [share(num_cores, num_active, rank) for rank in range(num_active)]
    assert min(shares) >= 1
    assert max(shares) - min(shares) <= 1
    assert sum(shares) == max(num_cores, num_active)
