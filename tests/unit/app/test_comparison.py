"""Variants over the same inputs, each in a process of its own; and what is refused before."""

from pathlib import Path

import numpy as np
import pytest

from serving.app.comparison import compare, read_data, variants_of
from serving.app.plan import Plan, make_plan
from serving.artifacts import ArtifactStore, ensure
from serving.errors import ConfigError
from serving.quality.dataset import Example
from serving.settings import load_config
from serving.tasks import TASKS
from tests.unit.conftest import WriteConfig
from tests.unit.paper import Paper

TWO = "[{name: fp32, runtime: paper}, {name: folded, runtime: paper}]"


def plan_of(config: Path) -> Plan:
    return make_plan(load_config(config))


@pytest.mark.usefixtures("paper")
def test_a_model_that_generates_cannot_be_compared_yet(write_config: WriteConfig) -> None:
    plan = plan_of(write_config("[{name: fp32, runtime: paper}]", "generation"))
    with pytest.raises(ConfigError, match="model 'tiny' generates; only encoders"):
        variants_of(plan, "tiny")


@pytest.mark.usefixtures("paper")
def test_an_unknown_model_is_told_with_the_known_ones(write_config: WriteConfig) -> None:
    with pytest.raises(ConfigError, match="unknown model 'huge'; configured: tiny"):
        variants_of(plan_of(write_config(TWO)), "huge")


@pytest.mark.usefixtures("paper")
def test_the_reference_comes_first(write_config: WriteConfig) -> None:
    config = write_config("[{name: folded, runtime: paper}, {name: fp32, runtime: paper}]")
    assert [one.variant.name for one in variants_of(plan_of(config), "tiny")] == ["fp32", "folded"]


def test_every_variant_is_measured_in_a_process_of_its_own(
    write_config: WriteConfig, paper: Paper, tmp_path: Path
) -> None:
    store = ArtifactStore(tmp_path / "store")
    variants = variants_of(plan_of(write_config(TWO, "letters")), "tiny")
    artifacts = [ensure(planned.artifact, store) for planned in variants]
    examples = [Example("abc"), Example("a"), Example("bb")]
    reference, folded = compare(variants, artifacts, examples)
    assert (reference.variant, folded.variant) == ("fp32", "folded")
    sums = np.asarray([294, 97, 196], np.float32)
    expected = np.stack([sums**power for power in range(4)], axis=1)
    for row, artifact in zip((reference, folded), artifacts, strict=True):
        np.testing.assert_array_equal(row.measurement.rows, expected)
        # The same rows; float32 rounds their lengths.
        assert row.measures == pytest.approx({"cosine": 1.0}, abs=1e-6)
        assert row.accuracy is None
        assert row.measurement.disk_bytes == artifact.size
        assert row.measurement.footprint.private_bytes > 0
        assert row.measurement.elapsed_s > 0


def test_texts_and_pairs_are_read(tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("one\ntwo\n")
    assert read_data(texts, TASKS["embeddings"]) == [Example("one"), Example("two")]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"query": "q", "document": "d"}\n' * 11)
    assert read_data(pairs, TASKS["rerank"]) == [Example(("q", "d"))] * 11
