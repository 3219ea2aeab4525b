"""The artifact of a generator on a GPU is a checkpoint of transformers; a CPU can write it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from serving.errors import ConfigError
from serving.runtimes.torch.cuda.preparing import prepare_paged_generator
from serving.runtimes.torch.pretrained import load_pretrained
from serving.seams import Checkpoint
from tests.unit.runtimes.tiny_generators import (
    MODELS,
    logits_of,
    prepare_request,
    random_model,
    random_tokens,
    save_generator,
    save_gguf,
)


@pytest.mark.parametrize("save", [save_generator, save_gguf])
def test_it_has_the_numbers_of_its_source(save: Callable[..., Checkpoint], tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "artifact").mkdir()
    source = save(tmp_path / "source", **MODELS["llama"])
    prepared = prepare_paged_generator(
        prepare_request("int4", source, tmp_path / "artifact", device="cuda")
    )
    model = load_pretrained(
        Checkpoint(tmp_path / "artifact"), "AutoModelForCausalLM", torch.float32
    )
    tokens = random_tokens(40, seed=1)
    expected = logits_of(random_model(**MODELS["llama"]), tokens)
    np.testing.assert_array_equal(logits_of(model, tokens), expected)
    assert prepared.weights_bytes > 400_000 * 4


def test_a_model_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    save_generator(tmp_path, **MODELS["llama"])
    code = "from transformers import LlamaForCausalLM\n\nclass Own(LlamaForCausalLM):\n    pass\n"
    (tmp_path / "modeling_own.py").write_text(code)
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_own.Own"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    source = Checkpoint(tmp_path, trust_remote_code=True)
    with pytest.raises(ConfigError, match="Python code of its own"):
        prepare_paged_generator(prepare_request("fp32", source, tmp_path, device="cuda"))
    # Nobody trusts the code: it is one of transformers' own models.
    (tmp_path / "artifact").mkdir()
    request = prepare_request("fp32", Checkpoint(tmp_path), tmp_path / "artifact", device="cuda")
    assert prepare_paged_generator(request).weights_bytes > 0
