"""Makes the tiny models and adapters of this folder with PEFT, which defines the format.

Not run by the tests: it wants peft 0.21 in an environment of its own::

    python -m tests.unit.adapters.make_adapters

Weights of linear layers lie on a grid of 16 steps that ``int4`` with ``method: rtn`` finds again,
so that quantizing a base changes next to nothing, and what an adapter adds can be told from it.
``expected.safetensors`` of an adapter holds every weight that PEFT merges it into, and the numbers
that the base with the adapter answers ``TOKENS`` with.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from tests.unit.adapters.tiny import ADAPTERS, BASE_OF, BASES, GROUP, TOKENS

ROPE_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SHAPE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
}
GPT2_SHAPE: dict[str, Any] = {
    "vocab_size": 64,
    "n_positions": 64,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "bos_token_id": None,
    "eos_token_id": None,
}


def bases() -> dict[str, PreTrainedModel]:
    torch.manual_seed(0)
    models: dict[str, PreTrainedModel] = {
        "llama": LlamaForCausalLM(LlamaConfig(**SHAPE, num_key_value_heads=2)),
        "gpt2": GPT2LMHeadModel(GPT2Config(**GPT2_SHAPE)),
        "bert": BertForSequenceClassification(BertConfig(**{**SHAPE, "num_labels": 3})),
    }
    for model in models.values():
        for module in model.modules():
            weight = getattr(module, "weight", None)
            if isinstance(weight, Tensor) and weight.ndim == 2:
                is_table = isinstance(module, nn.Embedding)
                weight.data = torch.randn_like(weight) if is_table else on_grid(weight)
    return models


def on_grid(weight: Tensor) -> Tensor:
    """Numbers of 16 steps, in each group the least and the largest, whichever way rows go."""
    rows, columns = weight.shape
    codes = torch.randint(-8, 8, weight.shape)
    for start in range(0, rows, GROUP):
        codes[start], codes[start + 1] = -8, 7
    for start in range(0, columns, GROUP):
        codes[:, start], codes[:, start + 1] = -8, 7
    return codes * 2.0**-5


def lora(**more: Any) -> LoraConfig:
    return LoraConfig(**{"r": 8, "lora_alpha": 16, "init_lora_weights": False, **more})


KINDS: dict[str, tuple[type[PreTrainedModel], LoraConfig]] = {
    "llama-every-layer": (
        LlamaForCausalLM,
        lora(task_type="CAUSAL_LM", target_modules=ROPE_LAYERS),
    ),
    "llama-patterns": (
        LlamaForCausalLM,
        lora(
            target_modules=["q_proj", "v_proj", "o_proj", "down_proj"],
            rank_pattern={"v_proj": 3, "^model.layers.0.mlp.down_proj": 5},
            alpha_pattern={"o_proj": 6, "^model.layers.1.self_attn.q_proj": 2},
        ),
    ),
    "llama-rank-stabilised": (
        LlamaForCausalLM,
        lora(target_modules=["q_proj", "up_proj"], use_rslora=True, lora_alpha=4),
    ),
    "gpt2": (
        GPT2LMHeadModel,
        lora(target_modules=["c_attn", "c_fc", "c_proj"], fan_in_fan_out=True),
    ),
    "bert-classifier": (
        BertForSequenceClassification,
        lora(task_type="SEQ_CLS", target_modules=["query", "value", "dense"]),
    ),
    "bert-body": (BertModel, lora(target_modules=["query", "dense"])),
}


def adapted(kind: str, base: Path) -> PeftModel:
    """A base with an adapter of random numbers, those that it brings as a whole included."""
    model_class, chosen = KINDS[kind]
    model = get_peft_model(model_class.from_pretrained(base), chosen)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            # Numbers of bfloat16, as trained adapters are often stored.
            spread = 0.2 if "lora_" in name else 0.3
            parameter.data = (torch.randn_like(parameter) * spread).bfloat16().float()
    return model.eval()


@torch.no_grad()
def write(kind: str, base: Path) -> None:
    folder, model = ADAPTERS / kind, adapted(kind, base)
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    said = folder / "adapter_config.json"
    # Where the base lies is this machine's own.
    settings = {**json.loads(said.read_text()), "base_model_name_or_path": None}
    said.write_text(json.dumps(settings, indent=2) + "\n")
    answer = model(torch.from_numpy(TOKENS))
    expected = {"answer": answer.logits if "logits" in answer else answer.last_hidden_state}
    before = dict(model.get_base_model().named_parameters())
    originals = {name.replace(".base_layer", ""): one.clone() for name, one in before.items()}
    merged = model.merge_and_unload()
    for name, weight in merged.named_parameters():
        if not torch.equal(weight, originals.get(name, torch.empty(0))):
            expected[name] = weight
    save_file(
        {name: one.contiguous() for name, one in expected.items()}, folder / "expected.safetensors"
    )


def main() -> None:
    for name, model in bases().items():
        model.save_pretrained(BASES / name)
        (BASES / name / "generation_config.json").unlink(missing_ok=True)
    for kind, base in BASE_OF.items():
        write(kind, BASES / base)


if __name__ == "__main__":
    main()
