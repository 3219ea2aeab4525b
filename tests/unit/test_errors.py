"""Errors cross processes, and each kind has its own status and code."""

import pickle

import pytest

from serving import errors
from serving.errors import (
    ConfigError,
    DamagedArtifact,
    InvalidField,
    MayPass,
    QuantserveError,
    RequestError,
    SourceError,
)

CONFIG_ERRORS = [ConfigError, SourceError, DamagedArtifact, MayPass]
REQUEST_ERRORS = [*RequestError.__subclasses__(), *InvalidField.__subclasses__()]


def test_the_list_of_request_errors_is_complete() -> None:
    statuses = {kind.__name__: kind.status for kind in REQUEST_ERRORS}
    assert statuses == {
        "Malformed": 400,
        "ConflictingChoice": 400,
        "Unauthorized": 401,
        "Unknown": 404,
        "MethodNotAllowed": 405,
        "BodyTooSlow": 408,
        "TooLarge": 413,
        "InvalidField": 422,
        "InputFails": 422,
        "CannotScore": 422,
        "QueueFull": 429,
        "InternalError": 500,
        "NotReady": 503,
        "DeadlineExceeded": 504,
        "TooManyTokens": 400,
    }


@pytest.mark.parametrize("kind", REQUEST_ERRORS)
def test_a_request_error_survives_pickling_with_all_attributes(kind: type[RequestError]) -> None:
    error = kind("what", param="input", retry_after_s=3)
    assert error.args == ("what", "input", 3)  # with which Ray may build it anew
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (str(again), again.message, again.param, again.retry_after_s) == (
        "what",
        "what",
        "input",
        3,
    )
    assert (again.status, again.type, again.code) == (kind.status, kind.type, kind.code)


@pytest.mark.parametrize("kind", CONFIG_ERRORS)
def test_a_config_error_survives_pickling(kind: type[ConfigError]) -> None:
    again = pickle.loads(pickle.dumps(kind("models[0].source: no folder")))
    assert type(again) is kind
    assert str(again) == "models[0].source: no folder"


def test_codes_tell_request_errors_apart() -> None:
    codes = [kind.code for kind in REQUEST_ERRORS]
    assert len(set(codes)) == len(codes)


def test_every_error_is_drawn_in_the_tree() -> None:
    for kind in (QuantserveError, *CONFIG_ERRORS, RequestError, *REQUEST_ERRORS):
        assert kind.__name__ in (errors.__doc__ or "")
