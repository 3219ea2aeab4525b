"""Variants over the same data, each in a process of its own; and what is refused before."""

from contextlib import closing
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from transformers import PreTrainedTokenizerFast

from serving.app.comparison import measuring
from serving.app.comparison.comparing import (
    PROMPT_TOKENS,
    ROUNDS,
    compare,
    drafts_of,
    in_turns,
    openings,
    prompts_of,
    read_data,
    variants_of,
)
from serving.app.comparison.variant_process import VariantProcess
from serving.app.plan import Plan, make_plan
from serving.artifacts import Artifact, ArtifactStore, ensure
from serving.errors import ConfigError
from serving.quality.dataset import Example, Passage
from serving.settings import load_config
from serving.tasks import TASKS
from tests.unit.conftest import WriteConfig
from tests.unit.runtimes.tiny_generators import save_generator
from tests.unit.tasks.tokenizers_by_kind import byte_fallback_tokenizer

TWO = "[{name: fp32, runtime: paper}, {name: folded, runtime: paper}]"


def plan_of(config: Path) -> Plan:
    return make_plan(load_config(config))


@pytest.mark.usefixtures("paper")
def test_an_unknown_model_or_variant_is_told_with_the_known_ones(write_config: WriteConfig) -> None:
    plan = plan_of(write_config(TWO))
    with pytest.raises(ConfigError, match="unknown model 'huge'; configured: tiny"):
        variants_of(plan, "huge")
    with pytest.raises(ConfigError, match="'tiny' has no variant 'int3'; it has fp32, folded"):
        variants_of(plan, "tiny", ["folded", "int3"])


@pytest.mark.usefixtures("paper")
def test_the_reference_comes_first_and_is_always_there(write_config: WriteConfig) -> None:
    twice = "{name: twice, recipe: folded, runtime: paper}"
    config = write_config(f"[{{name: folded, runtime: paper}}, {twice}, {TWO[1:].split('}')[0]}}}]")
    plan = plan_of(config)

    def names(*chosen: str) -> list[str]:
        return [one.variant.name for one in variants_of(plan, "tiny", chosen)]

    assert names() == ["fp32", "folded", "twice"]
    assert names("twice") == ["fp32", "twice"]
    assert drafts_of(plan, plan.variants) == []


def test_what_drafts_is_made_ready_too_but_not_compared(
    write_config: WriteConfig, checkpoint_folder: Path, tmp_path: Path
) -> None:
    save_generator(checkpoint_folder)
    PreTrainedTokenizerFast(
        tokenizer_object=byte_fallback_tokenizer(), bos_token="<s>", eos_token="</s>"
    ).save_pretrained(checkpoint_folder)
    drafted = "{name: fast, recipe: fp32, draft: {variant: bf16}}"
    plan = plan_of(write_config(f"[fp32, bf16, {drafted}]", "generation"))
    variants = variants_of(plan, "tiny", ["fast"])
    assert [one.variant.name for one in drafts_of(plan, variants)] == ["bf16"]
    assert drafts_of(plan, variants_of(plan, "tiny")) == []
    sizes = {"tiny:fp32": 100, "tiny:bf16": 50, "tiny:fast": 101}
    artifacts = {
        name: cast(Artifact, SimpleNamespace(name=name, size=size)) for name, size in sizes.items()
    }
    fp32, fast = openings(variants, artifacts)
    assert fp32.draft is None
    assert fast.draft is not None
    assert fast.draft.artifact is artifacts["tiny:bf16"]
    assert [one.disk_bytes for one in (fp32, fast)] == [100, 151]


@pytest.mark.usefixtures("paper")
def test_every_variant_is_measured_in_a_process_of_its_own(
    write_config: WriteConfig, tmp_path: Path
) -> None:
    store = ArtifactStore(tmp_path / "store")
    variants = variants_of(plan_of(write_config(TWO, "letters")), "tiny")
    artifacts = {one.artifact.name: ensure(one.artifact, store) for one in variants}
    opened = openings(variants, artifacts)
    reference, folded = compare(opened, [Example("abc"), Example("a"), Example("bb")])
    assert (reference.variant, folded.variant) == ("fp32", "folded")
    assert (folded.recipe, folded.runtime) == ("folded", "paper")
    for row, opening in zip((reference, folded), opened, strict=True):
        found = row.quantities
        # The same rows; float32 rounds their lengths.
        assert found["cosine"].figure.value == pytest.approx(1, abs=1e-6)
        assert "accuracy" not in found
        assert found["disk_bytes"].figure.value == opening.artifact.size
        resident, private = found["resident_bytes"].figure, found["private_bytes"].figure
        assert found["peak_bytes"].figure.value >= resident.value > private.value > 0
        assert found["time_s"].figure.value > 0
    time, one = folded.quantities["time_s"].ratio, reference.quantities["time_s"].ratio
    assert one is not None
    assert (one.value, one.low) == (1, None)
    assert time is not None
    assert time.low is not None
    assert time.high is not None
    assert 0 < time.low < time.value < time.high


@pytest.mark.usefixtures("paper")
def test_a_process_that_dies_is_told_and_one_that_refuses_says_why(
    write_config: WriteConfig, tmp_path: Path
) -> None:
    store = ArtifactStore(tmp_path / "store")
    variants = variants_of(plan_of(write_config(TWO, "letters")), "tiny", ["folded"])
    artifacts = {one.artifact.name: ensure(one.artifact, store) for one in variants}
    opening = openings(variants, artifacts)[0]
    with closing(VariantProcess(opening)) as process:
        with pytest.raises(ConfigError, match=r"^no such thing$"):
            process.call(refuse)
        assert process.call(measuring.labels) == ()  # it goes on
        with pytest.raises(ConfigError, match="tiny:fp32: the process ended with status 3"):
            process.call(leave)


def refuse(alone: object) -> None:
    raise ConfigError("no such thing")


def leave(alone: object) -> None:
    raise SystemExit(3)


def test_who_comes_first_changes_from_round_to_round() -> None:
    asked: list[tuple[str, int]] = []

    def ask(process: str, number: int) -> str:
        asked.append((process, number))
        return f"{process}{number}"

    found = in_turns(["a", "b"], 3, ask)
    assert found == [["a0", "a1", "a2"], ["b0", "b1", "b2"]]
    assert asked == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]


@pytest.mark.parametrize("count", [2 * PROMPT_TOKENS, 5 * PROMPT_TOKENS - 1, 10_000])
def test_no_prompt_is_the_one_before(count: int) -> None:
    prompts = prompts_of(range(count))
    assert len(prompts) == ROUNDS + 1
    assert all(len(prompt) == PROMPT_TOKENS for prompt in prompts)
    assert all(one[0] != next_[0] for one, next_ in pairwise(prompts))


def test_texts_that_are_too_short_for_prompts_are_refused() -> None:
    with pytest.raises(ConfigError, match="the texts have 127 tokens; at least 128 are needed"):
        prompts_of(range(2 * PROMPT_TOKENS - 1))


def test_texts_and_pairs_are_read(tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("one\ntwo\n")
    assert read_data(texts, TASKS["embeddings"]) == [Example("one"), Example("two")]
    assert read_data(texts, TASKS["generation"]) == [Passage("", "one\ntwo")]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"query": "q", "document": "d"}\n' * 11)
    assert read_data(pairs, TASKS["rerank"]) == [Example(("q", "d"))] * 11


def test_a_generator_s_data_of_another_form_is_refused_by_name(tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"prompt": "a", "completion": "b"}\n{"input": "c", "label": "d"}\n')
    with pytest.raises(ConfigError, match=r"lines\.jsonl: line 2: prompt") as caught:
        read_data(lines, TASKS["generation"])
    assert "input: unknown key" in str(caught.value)
