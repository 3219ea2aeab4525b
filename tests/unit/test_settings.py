"""The YAML file, the environment and the command line become one configuration."""

from pathlib import Path
from typing import Any

import pytest

from serving.errors import ConfigError
from serving.settings import load_config

MINIMAL = "models: [{name: minilm, task: embeddings, source: /m, variants: [fp32]}]\n"
WITH_SERVER = MINIMAL + "server: {port: 8001, max_inputs: 7}\n"


@pytest.fixture
def write(tmp_path: Path):
    def write_file(text: str | bytes) -> Path:
        file = tmp_path / "config.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return write_file


def error(file: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert str(caught.value).startswith(f"{file}: ")
    return str(caught.value).removeprefix(f"{file}: ")


def test_the_file_is_read(write) -> None:
    config = load_config(write(WITH_SERVER))
    assert config.models[0].name == "minilm"
    assert config.models[0].default_variant == "fp32"
    assert config.server.port == 8001


def test_the_environment_overrides_the_file(write, monkeypatch) -> None:
    monkeypatch.setenv("QUANTSERVE_SERVER__PORT", "8002")
    server = load_config(write(WITH_SERVER)).server
    assert (server.port, server.max_inputs) == (8002, 7)


def test_the_command_line_overrides_the_environment(write, monkeypatch) -> None:
    monkeypatch.setenv("QUANTSERVE_SERVER__PORT", "8002")
    monkeypatch.setenv("QUANTSERVE_SERVER__HOST", "10.0.0.1")
    server = load_config(write(WITH_SERVER), {"server": {"port": 8003}}).server
    assert (server.port, server.host, server.max_inputs) == (8003, "10.0.0.1", 7)


def test_a_key_from_the_environment_is_secret(write, monkeypatch) -> None:
    monkeypatch.setenv("QUANTSERVE_SERVER__API_KEY", "hush")
    server = load_config(write(MINIMAL)).server
    assert server.api_key is not None
    assert server.api_key.get_secret_value() == "hush"
    assert "hush" not in repr(server)


def test_models_can_come_from_the_environment(write, monkeypatch) -> None:
    models = '[{"name": "other", "task": "embeddings", "source": "/o", "variants": ["bf16"]}]'
    monkeypatch.setenv("QUANTSERVE_MODELS", models)
    assert load_config(write(MINIMAL)).models[0].name == "other"


def test_the_folder_of_artifacts_has_a_default_and_an_environment_variable(
    write, monkeypatch
) -> None:
    assert load_config(write(MINIMAL)).artifacts.folder == "~/.cache/quantserve/artifacts"
    monkeypatch.setenv("QUANTSERVE_ARTIFACTS__FOLDER", "/volume")
    assert load_config(write(MINIMAL)).artifacts.folder == "/volume"


def test_the_folder_of_evidence_likewise(write, monkeypatch) -> None:
    assert load_config(write(MINIMAL)).evidence.folder == "~/.local/share/quantserve/evidence"
    monkeypatch.setenv("QUANTSERVE_EVIDENCE__FOLDER", "/volume")
    assert load_config(write(MINIMAL)).evidence.folder == "/volume"


def test_the_folder_of_reports_likewise(write, monkeypatch) -> None:
    assert load_config(write(MINIMAL)).reports.folder == "."
    monkeypatch.setenv("QUANTSERVE_REPORTS__FOLDER", "/volume")
    assert load_config(write(MINIMAL)).reports.folder == "/volume"


@pytest.mark.parametrize("variable", ["QUANTSERVE_SEVER__PORT", "QUANTSERVE_SERVER_PORT"])
def test_a_variable_of_no_section_is_refused(write, monkeypatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(ConfigError, match=rf"{variable}.*known: models, server"):
        load_config(write(MINIMAL))


def refusal(file: Path, command_line: dict[str, Any] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(file, command_line)
    return str(caught.value)


@pytest.mark.parametrize("variable", ["QUANTSERVE_SERVER__PROT", "quantserve_server__prot"])
def test_a_variable_of_no_key_is_named(write, monkeypatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    said = refusal(write(MINIMAL))
    assert said == f"environment variable {variable}: server.prot: unknown key"


@pytest.mark.parametrize(
    ("variable", "value"),
    [("QUANTSERVE_SERVER__PORT", "many"), ("QUANTSERVE_SERVER", '{"port": "many"}')],
)
def test_a_variable_with_a_wrong_value_is_named_with_its_key(
    write, monkeypatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    said = refusal(write(WITH_SERVER))
    assert said.startswith(
        f"environment variable {variable}: server.port: Input should be a valid integer"
    )


def test_models_of_a_variable_are_its_own(write, monkeypatch) -> None:
    monkeypatch.setenv("QUANTSERVE_MODELS", '[{"name": "other", "task": "x", "variants": ["a"]}]')
    said = refusal(write(MINIMAL))
    assert said == "environment variable QUANTSERVE_MODELS: models[0].source: Field required"


def test_each_problem_is_told_with_its_own_origin(write, monkeypatch) -> None:
    file = write(MINIMAL + "server: {hots: x}\n")
    monkeypatch.setenv("QUANTSERVE_SERVER__PROT", "1")
    monkeypatch.setenv("QUANTSERVE_SERVER__PORT", "8001")
    assert sorted(refusal(file).splitlines()) == sorted(
        [
            "environment variable QUANTSERVE_SERVER__PROT: server.prot: unknown key",
            f"{file}: server.hots: unknown key",
        ]
    )


def test_a_variable_that_the_command_line_overrides_is_not_blamed(write, monkeypatch) -> None:
    monkeypatch.setenv("QUANTSERVE_SERVER__PORT", "8001")
    file = write(MINIMAL)
    said = refusal(file, {"server": {"port": 70_000}})
    assert said.startswith(f"{file}: server.port: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MINIMAL + "server: {hots: x}", "server.hots: unknown key"),
        (MINIMAL + "seerver: {}", "seerver: unknown key"),
        (MINIMAL + MINIMAL, "line 2: key 'models' is given twice"),
        (MINIMAL + "server:\n  port: 1\n  port: 2\n", "line 4: key 'port' is given twice"),
        ("models: [", "not valid YAML: "),
        ("models: !!python/object:os.system {}", "not valid YAML: "),
        ("", "expected keys such as models and server at the top level"),
        ("- models", "expected keys such as models and server at the top level"),
        ("just text", "expected keys such as models and server at the top level"),
        ("server: {}", "models: Field required"),
        (b"models: \xff", "cannot be read: "),
    ],
)
def test_a_wrong_file_is_refused(write, text: str | bytes, expected: str) -> None:
    assert error(write(text)).startswith(expected)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "cannot be read: " in error(tmp_path / "absent.yaml")
    assert "cannot be read: " in error(tmp_path)


@pytest.mark.parametrize("text", ["host: {{ HOST }}", "? [a, b]\n: 1"])
def test_a_key_that_is_no_word_is_refused(write, text: str) -> None:
    assert "not valid YAML" in error(write(text))


def test_a_top_level_key_that_is_a_number_is_refused(write) -> None:
    assert error(write(MINIMAL + "1: 2")) == "1: unknown key"


def test_merge_keys_are_understood(write) -> None:
    text = (
        "models:\n"
        "- &base {name: a, task: embeddings, source: /m, variants: [fp32]}\n"
        "- {<<: *base, name: b}\n"
    )
    assert [model.name for model in load_config(write(text)).models] == ["a", "b"]


def test_a_variable_that_is_not_json_is_refused(write, monkeypatch) -> None:
    monkeypatch.setenv("QUANTSERVE_SERVER", "{port: 1")
    with pytest.raises(ConfigError, match="server"):
        load_config(write(MINIMAL))
