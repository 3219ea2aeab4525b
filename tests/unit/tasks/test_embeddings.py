"""Vectors are normalised and cut; what a checkpoint's files ask for is honoured or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.errors import ConfigError, InvalidField
from serving.seams import AnswerOptions, Item, Outcome, Pooled, Pooling, Timings
from serving.tasks.embeddings import TASK, Embeddings
from serving.tasks.text_items import TextItem
from tests.unit.tasks.answering import prepare_and_open
from tests.unit.tasks.conftest import CLS, SEP, Folder

# float32 sums of at most four numbers: a few units in the last place.
TOLERANCE = 1e-6
ROWS = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)


def unit(vectors: NDArray[Any]) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def task_of(folder: Folder, tmp_path: Path) -> Embeddings:
    task = prepare_and_open("embeddings", folder.path, tmp_path / "task")
    assert isinstance(task, Embeddings)
    return task


def ids_of(item: Item) -> list[int]:
    assert isinstance(item, TextItem)
    return list(item.ids)


@pytest.fixture
def task(folder: Folder, tmp_path: Path) -> Embeddings:
    return task_of(folder, tmp_path)


def modules(*kinds: str, package: str = "sentence_transformers.models") -> list[dict[str, str]]:
    paths = {"Transformer": ""}
    return [
        {"type": f"{package}.{kind}", "path": paths.get(kind, f"{number}_{kind}")}
        for number, kind in enumerate(kinds)
    ]


USUAL = modules("Transformer", "Pooling", "Normalize")
WITH_DENSE = modules("Transformer", "Pooling", "Dense", "Normalize")
DENSE = {"in_features": 4, "out_features": 2}


def test_without_the_library_s_files_it_is_the_mean_of_unit_length(task: Embeddings) -> None:
    assert task.head == Pooled(pooling="mean", normalize=True)
    assert (task.width, task.max_tokens, task.labels) == (4, 16, ())
    [item] = task.prepare(["a b"], False)
    assert ids_of(item) == [CLS, 4, 5, SEP]


@pytest.mark.parametrize("dimensions", [None, 4])
def test_whole_vectors_have_unit_length(task: Embeddings, dimensions: int | None) -> None:
    np.testing.assert_allclose(
        task.decode(ROWS, AnswerOptions(dimensions)), unit(ROWS), atol=TOLERANCE
    )


def test_shortened_vectors_have_unit_length_again(task: Embeddings) -> None:
    short = task.decode(ROWS, AnswerOptions(2))
    assert short.dtype == np.float32
    np.testing.assert_allclose(short, unit(ROWS[:, :2]), atol=TOLERANCE)


def test_a_vector_that_is_zero_where_it_is_kept_stays_finite(task: Embeddings) -> None:
    assert task.decode(np.array([[0, 0, 0, 1]], np.float32), AnswerOptions(2)).tolist() == [[0, 0]]


def test_vectors_are_only_cut_where_the_checkpoint_does_not_normalise(
    folder: Folder, tmp_path: Path
) -> None:
    folder.write("modules.json", modules("Transformer", "Pooling"))
    task = task_of(folder, tmp_path)
    assert task.decode(ROWS).tolist() == ROWS.tolist()
    assert task.decode(ROWS, AnswerOptions(2)).tolist() == ROWS[:, :2].tolist()


def test_the_checkpoint_s_own_width_is_what_a_request_can_shorten(
    folder: Folder, tmp_path: Path
) -> None:
    folder.write("config_sentence_transformers.json", {"truncate_dim": 3})
    task = task_of(folder, tmp_path)
    assert task.width == 3
    np.testing.assert_allclose(task.decode(ROWS), unit(ROWS)[:, :3], atol=TOLERANCE)
    np.testing.assert_allclose(
        task.decode(ROWS, AnswerOptions(2)), unit(ROWS[:, :2]), atol=TOLERANCE
    )
    with pytest.raises(InvalidField, match="dimensions is 4; this model has 3"):
        task.check_options(AnswerOptions(4))


@pytest.mark.parametrize("dimensions", [None, 1, 4])
def test_dimensions_that_a_vector_has_are_accepted(
    task: Embeddings, dimensions: int | None
) -> None:
    task.check_options(AnswerOptions(dimensions))


def test_more_dimensions_than_a_vector_has_are_refused(task: Embeddings) -> None:
    with pytest.raises(InvalidField, match="dimensions is 5; this model has 4") as caught:
        task.check_options(AnswerOptions(5))
    assert caught.value.param == "dimensions"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, "mean"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_lasttoken": True, "include_prompt": True}, "last"),
        ({"pooling_mode_max_tokens": True, "word_embedding_dimension": 4}, "max"),
        ({"pooling_mode": "cls", "embedding_dimension": 4}, "cls"),
        ({"pooling_mode": ["lasttoken"]}, "last"),
        ({"pooling_mode": "cls", "pooling_mode_mean_tokens": True}, "cls"),
    ],
)
def test_the_checkpoint_chooses_the_pooling(
    folder: Folder, tmp_path: Path, config: dict[str, Any], expected: Pooling
) -> None:
    folder.write("modules.json", USUAL)
    folder.write("1_Pooling/config.json", config)
    assert task_of(folder, tmp_path).head == Pooled(pooling=expected, normalize=True)


def test_the_config_lies_where_modules_json_says(folder: Folder, tmp_path: Path) -> None:
    entry = {"type": "sentence_transformers.models.Pooling", "path": "pooling"}
    folder.write("modules.json", [USUAL[0], entry])
    folder.write("1_Pooling/config.json", {"pooling_mode": "mean"})
    folder.write("pooling/config.json", {"pooling_mode": "cls"})
    assert task_of(folder, tmp_path).head == Pooled(pooling="cls", normalize=False)


PROMPTS = {"prompts": {"query": "a b ", "passage": None}}


@pytest.mark.parametrize(
    ("library", "expected"),
    [
        ({**PROMPTS, "default_prompt_name": "query"}, [CLS, 4, 5, 6, SEP]),
        ({**PROMPTS, "default_prompt_name": "passage"}, [CLS, 6, SEP]),
        ({**PROMPTS, "default_prompt_name": "document"}, [CLS, 6, SEP]),
        ({**PROMPTS, "default_prompt_name": None}, [CLS, 6, SEP]),
        (PROMPTS, [CLS, 6, SEP]),
    ],
)
def test_only_the_default_prompt_is_put_before_a_text(
    folder: Folder, tmp_path: Path, library: dict[str, Any], expected: list[int]
) -> None:
    folder.write("config_sentence_transformers.json", library)
    [item] = task_of(folder, tmp_path).prepare(["c"], False)
    assert ids_of(item) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("query", [CLS, 4, 5, 6, SEP]), ("passage", [CLS, 6, SEP])]
)
def test_a_request_chooses_among_the_checkpoint_s_prompts(
    folder: Folder, tmp_path: Path, name: str, expected: list[int]
) -> None:
    folder.write("config_sentence_transformers.json", {**PROMPTS, "default_prompt_name": "query"})
    options = AnswerOptions(prompt_name=name)
    task = task_of(folder, tmp_path)
    task.check_options(options)
    [item] = task.prepare(["c"], False, options)
    assert ids_of(item) == expected


def test_another_prompt_is_refused_with_those_that_there_are(
    folder: Folder, tmp_path: Path
) -> None:
    folder.write("config_sentence_transformers.json", PROMPTS)
    with pytest.raises(InvalidField, match="'web'; this model has query, document, passage") as got:
        task_of(folder, tmp_path).check_options(AnswerOptions(prompt_name="web"))
    assert got.value.param == "prompt_name"


def test_a_prompt_that_is_left_out_of_the_pooling_is_refused(
    folder: Folder, tmp_path: Path
) -> None:
    folder.write("config_sentence_transformers.json", PROMPTS)
    folder.write("modules.json", USUAL)
    folder.write("1_Pooling/config.json", {"include_prompt": False})
    task = task_of(folder, tmp_path)
    task.check_options(AnswerOptions(prompt_name="passage"))
    with pytest.raises(InvalidField, match="leaves prompts out of its pooling"):
        task.check_options(AnswerOptions(prompt_name="query"))


BEHIND_PROMPT = {"default_prompt_name": "query", **PROMPTS}

REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"modules.json": modules("Transformer", "Pooling", "LSTM", "Normalize")},
        r"modules\.json: unsupported modules Transformer, Pooling, LSTM, Normalize; supported",
    ),
    ({"modules.json": modules("Transformer", "Dense", "Pooling")}, "unsupported modules"),
    (
        {"modules.json": WITH_DENSE, "2_Dense/config.json": {**DENSE, "pieces": 2}},
        r"2_Dense/config\.json: pieces: unknown key",
    ),
    (
        {
            "modules.json": WITH_DENSE,
            "2_Dense/config.json": {**DENSE, "activation_function": "torch.nn.modules.GELU"},
        },
        r"2_Dense: activation_function 'torch\.nn\.modules\.GELU' is not supported; supported: Id",
    ),
    (
        {
            "modules.json": WITH_DENSE,
            "2_Dense/config.json": {**DENSE, "activation_function": "mine.Tanh"},
        },
        r"activation_function 'mine\.Tanh' is not supported",
    ),
    (
        {
            "modules.json": WITH_DENSE,
            "2_Dense/config.json": {**DENSE, "module_input_name": "token_embeddings"},
        },
        "Dense of token_embeddings: only sentence_embedding",
    ),
    ({"modules.json": WITH_DENSE, "2_Dense/config.json": {}}, "in_features: Field required"),
    ({"modules.json": WITH_DENSE, "2_Dense/config.json": DENSE}, r"2_Dense: no model\.safetensors"),
    (
        {
            "modules.json": modules("Transformer", "Pooling", "LayerNorm"),
            "2_LayerNorm/config.json": {"dimension": 4},
        },
        r"2_LayerNorm: no model\.safetensors",
    ),
    ({"modules.json": modules("Transformer")}, "unsupported modules Transformer; supported"),
    (
        {"modules.json": modules("Transformer", "Pooling", package="custom_st")},
        r"unsupported modules custom_st\.Transformer, custom_st\.Pooling",
    ),
    (
        {"modules.json": [{**USUAL[0], "path": "0_Transformer"}, *USUAL[1:]]},
        "the transformer lies in '0_Transformer'",
    ),
    (
        {"modules.json": [USUAL[0], {**USUAL[1], "path": "../other"}]},
        r"the path '\.\./other' leaves the checkpoint",
    ),
    ({"modules.json": [{"path": ""}]}, r"modules\.json: \[0\]\.type: Field required"),
    ({"modules.json": {"type": "x"}}, "Input should be a valid list"),
    ({"1_Pooling/config.json": {}}, r"has 1_Pooling but no modules\.json"),
    (
        {
            "modules.json": USUAL,
            "1_Pooling/config.json": {"pooling_mode_weightedmean_tokens": True},
        },
        r"1_Pooling/config\.json: unsupported pooling weightedmean; supported: one of mean, cls",
    ),
    (
        {"modules.json": USUAL, "1_Pooling/config.json": {"pooling_mode": ["mean", "cls"]}},
        "unsupported pooling mean, cls",
    ),
    (
        {
            "modules.json": USUAL,
            "1_Pooling/config.json": {
                "pooling_mode_mean_tokens": True,
                "pooling_mode_cls_token": True,
            },
        },
        "unsupported pooling mean, cls",
    ),
    (
        {"modules.json": USUAL, "1_Pooling/config.json": {"weights": 3}},
        r"1_Pooling/config\.json: weights: unknown key",
    ),
    (
        {
            "modules.json": USUAL,
            "1_Pooling/config.json": {"include_prompt": False},
            "config_sentence_transformers.json": BEHIND_PROMPT,
        },
        "include_prompt is false, but the prompt 'a b ' stands before every text",
    ),
    (
        {
            "modules.json": USUAL,
            "2_Normalize/config.json": {"module_input_name": "token_embeddings"},
        },
        "only sentence_embedding is worked on after the pooling",
    ),
    (
        {"config_sentence_transformers.json": {"default_prompt_name": "web"}},
        "default_prompt_name 'web' is not one of the prompts: query, document",
    ),
    (
        {"config_sentence_transformers.json": {"model_type": "SparseEncoder"}},
        "a SparseEncoder, which is another task",
    ),
    ({"config_sentence_transformers.json": {"truncate_dim": 0}}, "truncate_dim: Input should be"),
    (
        {"sentence_bert_config.json": {"model_args": {"alibi": True}}},
        r"sentence_bert_config\.json: alibi: not supported; it may change answers",
    ),
    (
        {"sentence_bert_config.json": {"processing_kwargs": {"text": {"max_length": 3}}}},
        r"sentence_bert_config\.json: text: not supported",
    ),
    (
        {"sentence_bert_config.json": {"tokenizer_name_or_path": "other"}},
        "tokenizer_name_or_path: unknown key",
    ),
    (
        {"sentence_bert_config.json": {"modality_config": {"message": {}}}},
        "expected only texts without a chat template, and their last_hidden_state",
    ),
    (
        {
            "sentence_bert_config.json": {
                "modality_config": {"text": {"method_output_name": "pooler_output"}}
            }
        },
        "expected only texts",
    ),
]


@pytest.mark.parametrize(("files", "message"), REFUSED)
def test_what_is_not_built_here_is_refused_by_name(
    folder: Folder, tmp_path: Path, files: dict[str, Any], message: str
) -> None:
    for name, content in files.items():
        folder.write(name, content)
    with pytest.raises(ConfigError, match=message):
        task_of(folder, tmp_path)


def test_a_setting_without_effect_is_not_refused(folder: Folder, tmp_path: Path) -> None:
    folder.write("modules.json", USUAL)
    folder.write("1_Pooling/config.json", {"include_prompt": False})
    folder.write(
        "sentence_roberta_config.json",
        {
            "max_seq_length": 9,
            "model_args": {"attn_implementation": "eager", "torch_dtype": "float16"},
            "tokenizer_args": {"padding_side": "left"},
            "query_length": 4,
        },
    )
    assert task_of(folder, tmp_path).max_tokens == 9


def test_an_answer_is_shown_as_its_vector() -> None:
    outcome = Outcome(ROWS, (), 3, Timings(0, 0, 0, 0, 0))
    assert TASK.show is not None
    assert TASK.show(outcome, 1)["embedding"].tolist() == ROWS[1].tolist()
