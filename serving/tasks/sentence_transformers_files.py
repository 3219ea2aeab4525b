"""What a checkpoint's sentence-transformers files say, as far as it changes an answer.

The files are those that the library itself reads, as its version 6 writes them and as older ones
did. What would change an answer and is not built here is refused by name; so is a setting that is
not known here.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from serving.errors import ConfigError
from serving.seams import Checkpoint
from serving.settings import explain
from serving.tasks.checkpoint_files import read_json

_TRANSFORMER_FILES = [
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
]
"""There is one of them; old versions name it after the model."""

_HARMLESS = {
    *("attn_implementation", "dtype", "torch_dtype", "use_cache", "use_fast", "padding_side"),
    *("trust_remote_code", "local_files_only"),
}
"""Arguments that choose how the library loads and computes, not what; ours are chosen here."""

Shape = TypeVar("Shape")


class ModuleEntry(BaseModel):
    """One entry of ``modules.json``: a class of the library, and the folder of its config."""

    model_config = ConfigDict(frozen=True)
    type: str
    path: str = ""

    @property
    def kind(self) -> str:
        """Name of the library's class; of a class from elsewhere, its place as well."""
        package, _, rest = self.type.partition(".")
        return rest.rpartition(".")[2] if package == "sentence_transformers" else self.type


class TransformerSettings(BaseModel):
    """``sentence_bert_config.json``: how texts become tokens, and what is taken of the model.

    ``query_length`` and its like are for calls that say whether a text is a query.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    max_seq_length: int | None = Field(default=None, ge=1)
    do_lower_case: bool = False
    transformer_task: str | None = None
    modality_config: dict[str, dict[str, Any]] | None = None
    module_output_name: str | None = None
    unpad_inputs: bool | None = None
    query_length: int | None = None
    document_length: int | None = None
    processing_kwargs: dict[str, Any] = {}
    model_arguments: dict[str, Any] = Field(
        default={}, validation_alias=AliasChoices("model_kwargs", "model_args")
    )
    tokenizer_arguments: dict[str, Any] = Field(
        default={}, validation_alias=AliasChoices("processor_kwargs", "tokenizer_args")
    )
    config_arguments: dict[str, Any] = Field(
        default={}, validation_alias=AliasChoices("config_kwargs", "config_args")
    )

    @property
    def max_tokens(self) -> int | None:
        """The limit in place of the tokenizer's own; None leaves that."""
        limit: int | None = self.tokenizer_arguments.get("model_max_length", self.max_seq_length)
        return limit


class LibrarySettings(BaseModel):
    """``config_sentence_transformers.json``; what else is in it changes no answer."""

    model_config = ConfigDict(frozen=True)
    model_type: str = "SentenceTransformer"
    prompts: dict[str, str | None] = {}
    default_prompt_name: str | None = None
    truncate_dim: int | None = Field(default=None, ge=1)
    activation_fn: str | None = None


def read_modules(checkpoint: Checkpoint) -> list[ModuleEntry]:
    """Read ``modules.json``, which comes with a model that the library wrote; empty without it.

    Raises:
        ConfigError: A path leaves the checkpoint, or the transformer lies in a folder below it.
    """
    file = checkpoint.folder / "modules.json"
    modules = _validated(checkpoint, "modules.json", list[ModuleEntry]) if file.is_file() else []
    for module in modules:
        path = PurePosixPath(module.path)
        if path.is_absolute() or ".." in path.parts:
            raise ConfigError(f"{file}: the path {module.path!r} leaves the checkpoint")
        if module.kind == "Transformer" and path.parts:
            raise ConfigError(
                f"{file}: the transformer lies in {module.path!r}. Save the model with a newer "
                "sentence-transformers, which puts it beside modules.json"
            )
    return modules


def read_transformer_settings(checkpoint: Checkpoint, output: str) -> TransformerSettings:
    """Read ``sentence_bert_config.json``.

    Args:
        checkpoint: Where it lies, under any of its names; without it, nothing is special.
        output: What the task takes of the model: ``last_hidden_state`` or ``logits``.

    Raises:
        ConfigError: It says something that is not built here.
    """
    found = (name for name in _TRANSFORMER_FILES if (checkpoint.folder / name).is_file())
    name = next(found, _TRANSFORMER_FILES[0])
    settings = _validated(checkpoint, name, TransformerSettings)
    arguments = {
        *settings.model_arguments,
        *settings.config_arguments,
        *(settings.tokenizer_arguments.keys() - {"model_max_length"}),
    }
    if unknown := sorted([*(arguments - _HARMLESS), *settings.processing_kwargs]):
        raise ConfigError(
            f"{checkpoint.folder / name}: {', '.join(unknown)}: not supported; it may change "
            "answers. Write it into the config of the model or of its tokenizer instead"
        )
    modalities = settings.modality_config or {"text": {"method_output_name": output}}
    taken = modalities.get("text", {}).get("method_output_name")
    if "message" in modalities or taken not in (output, [output]):
        raise ConfigError(
            f"{checkpoint.folder / name}: modality_config: expected only texts without a chat "
            f"template, and their {output}"
        )
    return settings


def read_library_settings(checkpoint: Checkpoint, model_type: str) -> LibrarySettings:
    """Read ``config_sentence_transformers.json``; without it, nothing is special.

    Args:
        checkpoint: Where it lies.
        model_type: The library's class that the task stands for.

    Raises:
        ConfigError: The file is damaged, or is of another class.
    """
    name = "config_sentence_transformers.json"
    settings = _validated(checkpoint, name, LibrarySettings)
    if "model_type" in settings.model_fields_set and settings.model_type != model_type:
        raise ConfigError(
            f"{checkpoint.folder / name}: a {settings.model_type}, which is another task "
            f"(embeddings: SentenceTransformer, rerank: CrossEncoder); expected a {model_type}"
        )
    return settings


def known_prompts(settings: LibrarySettings) -> dict[str, str]:
    """What may stand before a text, by name; the library adds two where a checkpoint lacks them."""
    prompts = {"query": "", "document": "", **settings.prompts}
    return {name: prompt or "" for name, prompt in prompts.items()}


def default_prompt(settings: LibrarySettings) -> str:
    """What the library puts before a text that comes without the name of a prompt.

    Raises:
        ConfigError: The default's name is not among the prompts.
    """
    name = settings.default_prompt_name
    if name is None:
        return ""
    prompts = known_prompts(settings)
    if name not in prompts:
        raise ConfigError(
            f"config_sentence_transformers.json: default_prompt_name {name!r} is not one of the "
            f"prompts: {', '.join(prompts)}"
        )
    return prompts[name]


def read_module_config(checkpoint: Checkpoint, module: ModuleEntry, shape: type[Shape]) -> Shape:
    """Read the ``config.json`` in a module's folder; an absent one is empty.

    Raises:
        ConfigError: It is damaged, or of another shape; names it.
    """
    return _validated(checkpoint, str(PurePosixPath(module.path) / "config.json"), shape)


def _validated(checkpoint: Checkpoint, name: str, shape: type[Shape]) -> Shape:
    content = read_json(checkpoint, name)
    try:
        return TypeAdapter(shape).validate_python(content)
    except ValidationError as error:
        raise ConfigError(f"{checkpoint.folder / name}: {explain(error)}") from None
