"""``quantserve compare`` on tiny random models, each variant really prepared and run."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from serving.artifacts import ArtifactStore
from tests.unit.cli.conftest import Run
from tests.unit.runtimes.tiny_generators import save_generator
from tests.unit.tasks.tiny_checkpoints import save_checkpoint
from tests.unit.tasks.tokenizers_by_kind import byte_fallback_tokenizer

SENTENCES = ["the cat sat on a mat", "dogs never bark again", "the mat", "a cat and dogs again"]


def compared(run: Run, folder: Path, task: str, variants: str, data: Path, *more: str) -> list[Any]:
    """Rows of the CSV that it writes."""
    config = folder / "config.yaml"
    model = f"{{name: tiny, task: {task}, source: {folder / 'model'}, variants: {variants}}}"
    config.write_text(f"models:\n- {model}\n")
    out = folder / "out"
    done = run("compare", "tiny", "--data", data, "--config", config, "--out", out, *more)
    assert done.exit_code == 0, done.stderr
    assert {path.name for path in out.iterdir()} == {
        f"comparison.{e}" for e in ("md", "csv", "svg")
    }
    with (out / "comparison.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("store")
def test_an_encoder_s_variants(run: Run, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model", "bert", labels=2)
    data = tmp_path / "data.jsonl"
    lines = [
        {"input": text, "label": f"LABEL_{n // 4 % 2}"} for n, text in enumerate(SENTENCES * 6)
    ]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    variants = "[int8-dynamic, fp32, bf16]"
    fp32, bf16 = compared(run, tmp_path, "classification", variants, data, "--variant", "bf16")
    assert (fp32["variant"], bf16["variant"]) == ("fp32", "bf16")
    # Half of the labels of each sentence are wrong whatever is said of it.
    assert float(fp32["accuracy"]) == float(bf16["accuracy"]) == 0.5
    assert float(bf16["accuracy_ratio"]) == 1
    assert float(bf16["agreement"]) >= 0.75
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    stored = sum(tensor.numel() * 4 for tensor in tensors.values())
    assert float(fp32["disk_bytes"]) == pytest.approx(stored, rel=0.5)
    assert float(bf16["weights_bytes_ratio"]) == pytest.approx(0.5, abs=0.05)
    assert float(bf16["time_s_ratio_low"]) < float(bf16["time_s_ratio"])
    assert float(bf16["peak_bytes"]) >= float(bf16["resident_bytes"]) > 50 * 2**20


@pytest.mark.usefixtures("store")
def test_a_generator_s_variants(run: Run, tmp_path: Path) -> None:
    """fp32's perplexity is that of transformers' own pass, to a thousandth of float32 sums."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_fallback_tokenizer(), bos_token="<s>", eos_token="</s>"
    )
    save_generator(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    data = tmp_path / "data.jsonl"
    passages = [("the cat", " sat on the cat" * 9), ("", "a mat of the cat " * 9)]
    data.write_text("".join(json.dumps({"prompt": a, "completion": b}) + "\n" for a, b in passages))
    fp32, bf16 = compared(run, tmp_path, "generation", "[fp32, bf16]", data)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    losses = []
    for prompt, completion in passages:
        ids = tokenizer(prompt + completion)["input_ids"]
        start = max(len(tokenizer(prompt)["input_ids"]) if prompt else 0, 1)
        with torch.no_grad():
            logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        losses += [-float(logs[n - 1, ids[n]]) for n in range(start, len(ids))]
    expected = float(torch.tensor(losses).mean().exp())
    assert float(fp32["perplexity"]) == pytest.approx(expected, rel=1e-3)
    assert float(bf16["perplexity_ratio"]) == pytest.approx(1, abs=0.1)
    assert float(bf16["perplexity_ratio_low"]) < float(bf16["perplexity_ratio_high"])
    assert 0.5 < float(bf16["same_top_token"]) <= 1
    assert float(bf16["weights_bytes_ratio"]) == pytest.approx(0.5, abs=0.05)
    for name in ("first_token_s", "tokens_per_s"):
        assert float(bf16[name]) > 0
        assert float(bf16[f"{name}_ratio_low"]) < float(bf16[f"{name}_ratio"])


def test_data_of_another_form_is_refused_before_anything_is_prepared(
    run: Run, tmp_path: Path, store: ArtifactStore
) -> None:
    save_generator(tmp_path / "model")
    PreTrainedTokenizerFast(
        tokenizer_object=byte_fallback_tokenizer(), bos_token="<s>", eos_token="</s>"
    ).save_pretrained(tmp_path / "model")
    config, data = tmp_path / "config.yaml", tmp_path / "data.jsonl"
    model = f"{{name: tiny, task: generation, source: {tmp_path / 'model'}, variants: [fp32]}}"
    config.write_text(f"models: [{model}]\n")
    data.write_text('{"input": "a text", "label": "good"}\n')
    done = run("compare", "tiny", "--data", data, "--config", config)
    assert done.exit_code == 1
    assert "data.jsonl: line 1: " in done.stderr
    assert "input" in done.stderr
    assert list(store.ids()) == []
