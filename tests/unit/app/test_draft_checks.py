"""Which variants may propose tokens to which, and what that takes."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from serving.app.plan import make_plan
from serving.cli.check import plan_table
from serving.config import Config
from serving.errors import ConfigError
from serving.runtimes import RUNTIMES
from tests.unit.app.test_source_checks import write_tokenizer
from tests.unit.runtimes.tiny_generators import TINY, save_generator

WORDS = [f"w{number}" for number in range(TINY["vocab_size"])]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("checkpoint"), WORDS)


def written(folder: Path, words: list[str], **config: Any) -> Path:
    save_generator(folder, **config)
    write_tokenizer(folder, *words)
    return folder


def config_of(
    checkpoint: Path,
    draft: dict[str, Any] | None = None,
    fast: dict[str, Any] | None = None,
) -> Config:
    variants = [
        {"name": "fp32", "device": "cpu"},
        {"name": "small", "recipe": "int4", "device": "cpu", **(draft or {})},
        {
            "name": "fast",
            "recipe": "fp32",
            "device": "cpu",
            "max_running_requests": 4,
            "draft": {"variant": "small"},
            **(fast or {}),
        },
    ]
    model = {"name": "tiny", "task": "generation", "source": str(checkpoint), "variants": variants}
    return Config.model_validate({"models": [model]})


def refusal(config: Config, cluster_has_cuda: bool | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        make_plan(config, cluster_has_cuda)
    return str(caught.value)


def test_a_draft_is_counted_in(checkpoint: Path) -> None:
    fp32, small, fast = make_plan(config_of(checkpoint)).variants
    assert (fp32.draft, small.draft, fast.draft) == (None, None, small.artifact)
    assert fast.weights_bytes == fp32.weights_bytes + small.weights_bytes
    # Eight sequences may run in the others, four in this one and so in its draft.
    assert fast.kv_cache_bytes == (fp32.kv_cache_bytes + small.kv_cache_bytes) // 2
    unshared = small.replica_bytes - small.process_bytes - small.kv_cache_bytes // 2
    exact = fp32.replica_bytes - fp32.kv_cache_bytes // 2
    assert fast.replica_bytes == exact + unshared
    assert fast.process_bytes == fp32.process_bytes


def test_check_says_what_drafts(checkpoint: Path) -> None:
    screen = Console(width=120, record=True, file=io.StringIO())
    screen.print(plan_table(make_plan(config_of(checkpoint)), ["missing"] * 3))
    lines = [line for line in screen.export_text().splitlines() if "drafted by small" in line]
    assert len(lines) == 1
    assert "tiny:fast" in lines[0]


def test_a_draft_with_other_tokens_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    other = written(tmp_path, [*WORDS[:7], "else", *WORDS[8:]])
    said = refusal(config_of(checkpoint, {"source": str(other)}))
    assert "token 7 is 'else'" in said


def test_a_draft_is_compared_with_what_checks_it(checkpoint: Path, tmp_path: Path) -> None:
    """The reference may have fewer tokens than both of them."""
    one = written(tmp_path / "one", [*WORDS, "one"], vocab_size=len(WORDS) + 1)
    other = written(tmp_path / "other", [*WORDS, "other"], vocab_size=len(WORDS) + 1)
    config = config_of(checkpoint, {"source": str(other)}, {"source": str(one)})
    said = refusal(config)
    assert said.startswith("models[0].variants[2].draft: 'small' has other tokens than 'fast'")
    assert f"token {len(WORDS)} is 'other'" in said


def test_drafts_are_for_the_cpu(checkpoint: Path) -> None:
    said = refusal(config_of(checkpoint, fast={"device": "auto"}), cluster_has_cuda=True)
    assert said.startswith("models[0].variants[2].draft: 'fast' runs on cuda")


def test_a_runtime_that_cannot_be_stepped_has_no_draft(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = RUNTIMES["torch"]
    plan = make_plan(config_of(checkpoint))
    assert plan.variants[2].draft is not None
    monkeypatch.setattr(
        "serving.app.draft_checks.RUNTIMES", {"torch": replace(whole, open_decoder=None)}
    )
    said = refusal(config_of(checkpoint))
    assert said.startswith("models[0].variants[2].draft: 'fast' runs on 'torch', which cannot")


def test_encoders_have_no_drafts(checkpoint: Path) -> None:
    variants = ["fp32", {"name": "fast", "recipe": "fp32", "draft": {"variant": "fp32"}}]
    model = {"name": "tiny", "task": "embeddings", "source": str(checkpoint), "variants": variants}
    said = refusal(Config.model_validate({"models": [model]}))
    assert said.startswith("models[0].variants[1].draft: a key of generators")
