"""Whether one variant can propose tokens that another checks."""

from __future__ import annotations

from serving.app.sources import Sources
from serving.config import ModelConfig, VariantConfig
from serving.errors import ConfigError
from serving.runtimes import RUNTIMES
from serving.seams import DeviceName
from serving.tasks import TASKS


def check_draft(
    key: str,
    model: ModelConfig,
    exact: VariantConfig,
    draft: VariantConfig,
    devices: tuple[DeviceName, DeviceName],
    sources: Sources,
) -> None:
    """Look at both variants before anything of them is loaded.

    Args:
        key: Of the exact variant's ``draft``, for messages.
        model: Whose variants they are.
        exact: Checks.
        draft: Proposes.
        devices: Where the one and the other would run.
        sources: Finds those of both.

    Raises:
        ConfigError: One of them does not step token by token on the CPU, or their tokens differ.
    """
    for variant, device in zip((exact, draft), devices, strict=True):
        if device != "cpu":
            raise ConfigError(
                f"{key}: {variant.name!r} runs on {device}, where generators batch by themselves; "
                "drafts are for the CPU: give both variants device: cpu"
            )
        if RUNTIMES[variant.runtime].open_decoder is None:
            raise ConfigError(
                f"{key}: {variant.name!r} runs on {variant.runtime!r}, which cannot be stepped "
                "token by token; name a variant on another runtime"
            )
    one, other = (sources.find(model, variant).checkpoint for variant in (draft, exact))
    compare = TASKS[model.task].why_not_comparable
    if one != other and compare is not None and (reason := compare(one, other)) is not None:
        raise ConfigError(
            f"{key}: {draft.name!r} has other tokens than {exact.name!r}, which would check them: "
            f"{one.folder} has {reason}. Name a variant with the same tokenizer"
        )
