"""What ``compare`` refuses before it loads anything."""

import pytest

from serving.app.comparison import compare
from serving.app.plan import make_plan
from serving.errors import ConfigError
from serving.quality.dataset import Example
from serving.settings import load_config
from tests.unit.conftest import WriteConfig


def test_a_model_that_generates_cannot_be_compared_yet(write_config: WriteConfig) -> None:
    plan = make_plan(load_config(write_config(task="generation")))
    with pytest.raises(ConfigError, match="model 'tiny' generates; only models that embed"):
        next(compare(plan, "tiny", [Example(input="a")]))


def test_an_unknown_model_is_told_with_the_known_ones(write_config: WriteConfig) -> None:
    plan = make_plan(load_config(write_config()))
    with pytest.raises(ConfigError, match="unknown model 'huge'; configured: tiny"):
        next(compare(plan, "huge", [Example(input="a")]))
