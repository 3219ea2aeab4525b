"""A classifier with an adapter becomes an artifact, and answers with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from serving.app.plan import Plan, make_plan
from serving.artifacts import ArtifactStore, ensure
from serving.artifacts.rehearsal import rehearse
from serving.settings import load_config
from tests.unit.adapters.tiny import ADAPTERS, BASES, TOKENS
from tests.unit.artifacts.opened import opened

ADAPTER = str(ADAPTERS / "bert-classifier")


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """The tiny classifier with words for its tokens: as it is, and adapted in two ways."""
    folder = Path(shutil.copytree(BASES / "bert", tmp_path / "bert"))
    words = Tokenizer(WordLevel({f"w{token}": token for token in range(64)}, unk_token="w0"))
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="w0", pad_token="w0", model_max_length=64
    ).save_pretrained(folder)
    int4 = {"recipe": "int4", "options": {"method": "rtn"}}
    model = {
        "name": "bert",
        "task": "classification",
        "source": str(folder),
        "variants": [
            "fp32",
            {"name": "tuned", "recipe": "fp32", "adapter": ADAPTER},
            {"name": "beside", **int4, "adapter": {"source": ADAPTER, "place": "beside"}},
        ],
    }
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"models": [model]}))
    return make_plan(load_config(file))


def test_artifacts_answer_with_their_adapter(plan: Plan, tmp_path: Path) -> None:
    """float32 to 1e-5 of sums in another order; ``int4`` beside to 3 % of what bfloat16 rounds."""
    store = ArtifactStore(tmp_path / "store")
    texts = [" ".join(f"w{token}" for token in text) for text in TOKENS]
    rows = []
    for planned in plan.variants:
        task, engine = opened(ensure(planned.artifact, store))
        rows.append(engine.forward(task.collate(task.prepare(texts, False))))
    plain, tuned, beside = rows
    expected = load_file(ADAPTERS / "bert-classifier" / "expected.safetensors")["answer"]
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    assert (np.abs(tuned - expected) / lengths).max() <= 1e-5
    assert (np.abs(beside - expected) / lengths).mean() <= 0.03
    assert (np.abs(plain - expected) / lengths).mean() >= 0.15


def test_checking_loads_a_checkpoint_with_its_adapter(plan: Plan) -> None:
    tried = rehearse((planned.artifact, None) for planned in plan.variants)
    assert [request.name for request in tried] == ["bert:fp32", "bert:tuned", "bert:beside"]
