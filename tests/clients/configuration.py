"""What the clients ask: the demo's models in a few variants, a caller of tools and a ranker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from safetensors.numpy import load_file, save_file

from serving.demo import DEMO_CONFIG

VARIANTS = {
    "minilm": ("fp32", "int8-dynamic"),
    "sentiment": ("int8-dynamic",),
    "smollm2": ("int8-dynamic", "q4_1"),
}
"""Of each model, a small part: what a client meets is the same in all of them."""

TEMPLATE = """\
{%- if tools %}<|im_start|>system
Call one of these functions:{% for tool in tools %} {{ tool | tojson }}{% endfor %}<|im_end|>
{% endif -%}
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content }}
{%- for call in message.tool_calls or [] -%}
{%- set said = {"name": call.function.name, "arguments": call.function.arguments} -%}
<tool_call>
{{ said | tojson }}
</tool_call>
{%- endfor %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}
"""
"""Of the model that calls tools, in the form of Hermes; SmolLM2's own has no place for them."""


def write_configuration(folder: Path) -> Path:
    """Write the configuration into an empty folder, and the checkpoints it adds to the demo."""
    demo = yaml.safe_load(DEMO_CONFIG.read_text())
    models = [_with_few_variants(model) for model in demo["models"]]
    sources = {model["name"]: Path(model["source"]).expanduser() for model in models}
    caller = _with_template(sources["smollm2"], folder / "caller")
    ranker = _with_one_logit(sources["sentiment"], folder / "ranker")
    models += [
        {
            "name": "caller",
            "task": "generation",
            "source": str(caller),
            "variants": ["int8-dynamic"],
            "aliases": ["quantserve/Caller-135M"],
        },
        {"name": "ranker", "task": "rerank", "source": str(ranker), "variants": ["int8-dynamic"]},
    ]
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({**demo, "models": models}))
    return file


def _with_few_variants(model: dict[str, Any]) -> dict[str, Any]:
    kept = VARIANTS[model["name"]]
    variants = [v for v in model["variants"] if (v["name"] if isinstance(v, dict) else v) in kept]
    assert len(variants) == len(kept)
    return {**model, "variants": variants}


def _with_template(checkpoint: Path, folder: Path) -> Path:
    """The same checkpoint, by links, with the other chat template."""
    folder.mkdir()
    for file in checkpoint.iterdir():
        if file.name != "chat_template.jinja":
            (folder / file.name).symlink_to(file)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def _with_one_logit(checkpoint: Path, folder: Path) -> Path:
    """The classifier as a cross-encoder: a pair is as relevant as it is positive, not negative.

    The sigmoid of the two logits' difference is the softmax's probability of the second.
    """
    folder.mkdir()
    for file in checkpoint.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            (folder / file.name).symlink_to(file)
    tensors = load_file(checkpoint / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = tensors[name][1:] - tensors[name][:1]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((checkpoint / "config.json").read_text())
    one = {"id2label": {"0": "relevant"}, "label2id": {"relevant": 0}, "problem_type": None}
    (folder / "config.json").write_text(json.dumps({**config, **one}))
    return folder
