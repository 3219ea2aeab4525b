"""Where a checkpoint says that it is quantized."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serving.checkpoint_json import read_config_of, without_quantization
from serving.errors import SourceError

GPTQ = {"bits": 4, "group_size": 128, "desc_act": False}
AWQ = {"zero_point": True, "q_group_size": 128, "w_bit": 4, "version": "GEMM"}
PACKED = {"format": "pack-quantized", "config_groups": {}}


def read(folder: Path, config: dict[str, Any], **files: Any) -> dict[str, Any]:
    (folder / "config.json").write_text(json.dumps(config))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return read_config_of(folder)


@pytest.mark.parametrize(
    ("config", "files", "said"),
    [
        ({"compression_config": PACKED}, {}, {**PACKED, "quant_method": "compressed-tensors"}),
        ({"text_config": {"quantization_config": GPTQ}}, {}, GPTQ),
        ({"quantization_config": AWQ, "text_config": {"quantization_config": GPTQ}}, {}, AWQ),
        ({"quip_params": {"a": 1}}, {}, {"a": 1, "quant_method": "quip-sharp"}),
        ({}, {"quantize_config": GPTQ}, {**GPTQ, "quant_method": "gptq"}),
        ({}, {"quantize_config": {"quant_method": "awq"}}, {"quant_method": "awq"}),
        ({}, {"quant_config": AWQ}, {**AWQ, "quant_method": "awq"}),
        ({"quantization_config": AWQ}, {"quantize_config": GPTQ}, AWQ),
    ],
)
def test_what_is_said_elsewhere_is_found(
    tmp_path: Path, config: dict[str, Any], files: dict[str, Any], said: dict[str, Any]
) -> None:
    found = read(tmp_path, config, **files)
    assert found["quantization_config"] == said
    assert without_quantization(found) == ({"text_config": {}} if "text_config" in config else {})


def test_what_is_not_quantized_says_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, {"model_type": "bert"}) == {"model_type": "bert"}


def test_a_file_of_the_same_name_for_onnx_says_nothing(tmp_path: Path) -> None:
    of_transformers_js = {"modes": ["q8"], "per_channel": False, "reduce_range": False}
    said = read(tmp_path, {"model_type": "bert"}, quantize_config=of_transformers_js)
    assert said == {"model_type": "bert"}


@pytest.mark.parametrize(
    ("config", "files", "reason"),
    [
        ({"compression_config": []}, {}, r"config\.json: compression_config is \[\]; expected an"),
        ({"text_config": {"quantization_config": 4}}, {}, "of text_config is 4; expected an obj"),
        ({}, {"quantize_config": [4]}, r"quantize_config\.json: expected an object"),
    ],
)
def test_what_is_no_object_is_refused(
    tmp_path: Path, config: dict[str, Any], files: dict[str, Any], reason: str
) -> None:
    with pytest.raises(SourceError, match=reason):
        read(tmp_path, config, **files)
