"""Fields of other servers' bodies that both routes accept at the values that do nothing.

Some clients always send those; any other value would be silently wrong, so it is refused by name.
"""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from pydantic import AfterValidator

from serving.routes.schemas import ChoosingBody


def only(*harmless: object) -> AfterValidator:
    """Refuse every value of an unsupported field but those that do nothing."""
    known = " or ".join(orjson.dumps(value).decode() for value in harmless)
    advice = f"leave it out or send {known}" if known else "leave it out"

    def check(value: object) -> object:
        if value not in harmless:
            raise ValueError(f"not supported; {advice}")
        return value

    return AfterValidator(check)


def _refuse_guided(_: object) -> object:
    raise ValueError("not supported; send response_format with a JSON schema")


Guided = Annotated[Any, AfterValidator(_refuse_guided)]
"""Another server's way to say what ``response_format`` says; null leaves it out."""


class InertFields(ChoosingBody):
    """Fields that change no answer here.

    Attributes:
        store: Nothing is stored, nor cached under a key, nor served in tiers or by priority; so the
            fields from here to ``request_id`` may have any value.
        guided_choice: And these only the value that does nothing.
    """

    store: bool | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    cache_salt: str | None = None
    service_tier: str | None = None
    priority: int | None = None
    request_id: str | None = None

    guided_choice: Guided = None
    guided_decoding_backend: Guided = None
    guided_grammar: Guided = None
    guided_json: Guided = None
    guided_regex: Guided = None
    guided_whitespace_pattern: Guided = None
    structured_outputs: Guided = None
    bad_words: Annotated[Any, only([])] = None
    detokenize: Annotated[Any, only(True)] = None
    early_stopping: Annotated[Any, only(False)] = None
    include_stop_str_in_output: Annotated[Any, only(False)] = None
    length_penalty: Annotated[Any, only(1)] = None
    return_token_ids: Annotated[Any, only(False)] = None
    return_tokens_as_token_ids: Annotated[Any, only(False)] = None
    skip_special_tokens: Annotated[Any, only(True)] = None
    spaces_between_special_tokens: Annotated[Any, only(True)] = None
    stop_token_ids: Annotated[Any, only([])] = None
    use_beam_search: Annotated[Any, only(False)] = None
