"""What a config says of a classifier, as the file holds it and as transformers reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from serving.errors import ConfigError
from serving.seams import Checkpoint
from serving.tasks.classifier_config import label_names, require_classifier, require_one_logit

CHECKPOINT = Checkpoint(Path("/models/one"))
OWN_CODE = {"auto_map": {"AutoModelForSequenceClassification": "own.Classifier"}}


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"num_labels": 1},
        {"num_labels": 3},
        {"id2label": {"0": "only"}},
        {"id2label": {"2": "c", "1": "b", "0": "a"}},
        {"id2label": {"0": None, "1": "b"}, "num_labels": 2},
    ],
)
def test_the_file_says_what_transformers_reads(tmp_path: Path, config: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **config}))
    read = AutoConfig.from_pretrained(tmp_path)
    names = label_names(CHECKPOINT, config)
    assert names == label_names(CHECKPOINT, read.to_dict())
    assert names is not None
    assert len(names) == read.num_labels


def test_only_own_code_may_know_the_labels() -> None:
    assert label_names(CHECKPOINT, OWN_CODE) is None
    assert label_names(CHECKPOINT, {**OWN_CODE, "num_labels": 1}) == ("LABEL_0",)
    require_one_logit(CHECKPOINT, OWN_CODE)
    require_classifier(CHECKPOINT, {**OWN_CODE, "architectures": ["Classifier"]})


@pytest.mark.parametrize("config", [{"num_labels": "many"}, {"id2label": ["a"]}])
def test_labels_that_are_none_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"/models/one/config\.json: id2label or num_labels: "):
        label_names(CHECKPOINT, config)


def test_one_logit_is_let_through() -> None:
    named = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "score"}}
    require_one_logit(CHECKPOINT, named)
    with pytest.raises(ConfigError, match="has 2 logits; a cross-encoder has one"):
        require_one_logit(CHECKPOINT, {**named, "id2label": {"0": "a", "1": "b"}})
