"""Pairs become items, scores are compared by the order they make, and odd checkpoints refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.errors import ConfigError, InvalidField, TooManyTokens
from serving.quality.probes import MIN_PROBES
from serving.seams import NO_OPTIONS, AnswerOptions, Logits, Outcome, ProbeRows, Timings
from serving.tasks.rerank import TASK, Rerank
from tests.unit.tasks.answering import prepare_and_open
from tests.unit.tasks.conftest import CLS, SEP, Folder

ONE = {"id2label": {"0": "LABEL_0"}}
A, B, C, D = 4, 5, 6, 7


def task_of(folder: Folder, tmp_path: Path, **config: Any) -> Rerank:
    folder.configure(**{**ONE, **config})
    task = prepare_and_open("rerank", folder.path, tmp_path / "task")
    assert isinstance(task, Rerank)
    return task


def test_a_pair_is_one_item_with_token_types(folder: Folder, tmp_path: Path) -> None:
    settings = json.loads((folder.path / "tokenizer_config.json").read_text())
    inputs = ["input_ids", "attention_mask", "token_type_ids"]
    folder.write("tokenizer_config.json", {**settings, "model_input_names": inputs})
    task = task_of(folder, tmp_path)
    assert (task.head, task.width, task.labels) == (Logits(activation="sigmoid"), 1, ())
    arrays = task.collate(task.prepare([("a", "b c"), ("d", "a")], False))
    assert arrays["input_ids"][:, :6].tolist() == [
        [CLS, A, SEP, B, C, SEP],
        [CLS, D, SEP, A, SEP, 0],
    ]
    assert arrays["token_type_ids"][:, :6].tolist() == [[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0]]


def test_a_single_text_is_refused(folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(InvalidField, match="takes pairs of a query and a document"):
        task_of(folder, tmp_path).prepare([("a", "b"), "c"], False)


def test_a_long_pair_is_refused_unless_it_shall_be_cut(folder: Folder, tmp_path: Path) -> None:
    task = task_of(folder, tmp_path)
    with pytest.raises(TooManyTokens, match=r"input\[0\] has 23 tokens; the limit is 16"):
        task.prepare([("a", "b " * 19)], False)
    assert [item.cost for item in task.prepare([("a", "b " * 19)], True)] == [16]


def test_options_belong_to_embeddings(folder: Folder, tmp_path: Path) -> None:
    task = task_of(folder, tmp_path)
    task.check_options(NO_OPTIONS)
    with pytest.raises(InvalidField, match="dimensions belongs to embeddings"):
        task.check_options(AnswerOptions(1))


@pytest.mark.parametrize(
    ("files", "config", "message"),
    [
        ({}, {"id2label": None}, "classifier has 2 logits; a cross-encoder has one"),
        ({}, {"architectures": ["Qwen3ForCausalLM"]}, "holds a Qwen3ForCausalLM, which has no"),
        (
            {},
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}},
            r"unsupported activation function torch\.nn\.modules\.activation\.Tanh; supported",
        ),
        (
            {"config_sentence_transformers.json": {"activation_fn": "mine.Scaled"}},
            {},
            r"unsupported activation function mine\.Scaled",
        ),
        (
            {"config_sentence_transformers.json": {"model_type": "SentenceTransformer"}},
            {},
            "a SentenceTransformer, which is another task",
        ),
        (
            {
                "modules.json": [
                    {"type": f"sentence_transformers.base.modules.{kind}", "path": path}
                    for kind, path in [("Transformer", ""), ("Dense", "1_Dense")]
                ]
            },
            {},
            "unsupported modules Transformer, Dense; a cross-encoder here is a Transformer",
        ),
    ],
)
def test_what_is_not_built_here_is_refused_by_name(
    folder: Folder, tmp_path: Path, files: dict[str, Any], config: dict[str, Any], message: str
) -> None:
    for name, content in files.items():
        folder.write(name, content)
    with pytest.raises(ConfigError, match=message):
        task_of(folder, tmp_path, **config)


def one(score: float) -> NDArray[np.float32]:
    return np.array([score], np.float32)


def column(*scores: float) -> NDArray[np.float32]:
    return np.array(scores, np.float32)[:, None]


def agreement(row: float, reference: float, probes: ProbeRows) -> float:
    assert TASK.judging is not None
    judging = TASK.judging()
    assert judging.needs_probes
    return judging.agreement(one(row), one(reference), probes)


@pytest.mark.parametrize(
    ("row", "expected"),
    # Against the reference's 0.5, the probes stand: below, below, above, above.
    [(0.5, 1), (0.25, 0.75), (0.05, 0.5), (0.95, 0.5), (0.1, 0.5), (np.nan, 0), (np.inf, 0)],
)
def test_agreement_is_the_share_of_probes_in_the_same_order(row: float, expected: float) -> None:
    probes = ProbeRows(column(0.1, 0.3, 0.7, 0.9), column(0.1, 0.3, 0.7, 0.9))
    assert agreement(row, 0.5, probes) == expected


def test_scores_on_another_scale_agree_if_their_order_does() -> None:
    probes = ProbeRows(column(-3, -1, 2, 5), column(0.1, 0.3, 0.7, 0.9))
    assert agreement(0, 0.5, probes) == 1


def test_a_probe_is_not_compared_with_itself() -> None:
    probes = ProbeRows(column(0.2, 0.4, 0.6), column(0.3, 0.2, 0.6), leave_out=1)
    assert agreement(0.4, 0.2, probes) == 0.5


def test_a_reference_without_a_score_is_an_error() -> None:
    with pytest.raises(ValueError, match="reference's score is NaN or infinite"):
        agreement(0.5, np.nan, ProbeRows(column(1), column(1)))


def test_the_change_of_a_score_is_measured() -> None:
    assert TASK.judging is not None
    measures = TASK.judging().measures
    assert measures(one(0.25), one(0.75)) == {"score_change": 0.5}
    assert measures(one(np.nan), one(0.75)) == {}


def test_an_answer_is_shown_as_its_score() -> None:
    outcome = Outcome(column(0.5, 0.25), (), 3, Timings(0, 0, 0, 0, 0))
    assert TASK.show is not None
    assert TASK.show(outcome, 1) == {"relevance_score": 0.25}


@pytest.mark.parametrize("queries", [["q"], ["q", "q"]])
def test_tensors_have_one_query_for_all_or_one_for_each(queries: list[str]) -> None:
    assert TASK.tensors is not None
    given = {"query": queries, "text": ["a", "b"]}
    assert TASK.tensors.to_inputs(given) == (("q", "a"), ("q", "b"))


@pytest.mark.parametrize("queries", [["q", "q", "q"], []])
def test_another_number_of_queries_is_refused(queries: list[str]) -> None:
    assert TASK.tensors is not None
    with pytest.raises(InvalidField, match=f"{len(queries)} queries for 2 texts; send one"):
        TASK.tensors.to_inputs({"query": queries, "text": ["a", "b"]})


def test_the_package_has_probes_of_every_degree() -> None:
    probes = TASK.read_probes(None)
    assert len(probes) >= 4 * MIN_PROBES
    assert len(set(probes)) == len(probes)
    by_query = [pair[0] for pair in probes]
    assert all(by_query.count(query) >= 3 for query in by_query)


def test_there_are_no_labels_to_meet(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no labels to meet"):
        TASK.read_labelled(tmp_path / "labels.jsonl")
