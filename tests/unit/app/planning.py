"""How tests of a plan make one, and what stands in their configurations."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.app.plan import Plan, make_plan
from serving.errors import ConfigError
from serving.settings import load_config

FOLDED = "{name: folded, runtime: paper}"
TWO = f"[{FOLDED}, {{name: twice, recipe: folded, runtime: paper, options: {{folds: 2}}}}]"


def plan_of(config: Path) -> Plan:
    return make_plan(load_config(config))


def refusal(config: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        plan_of(config)
    return str(caught.value)
