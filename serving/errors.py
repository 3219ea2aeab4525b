"""What can go wrong, as one tree; routes/error_responses.py maps it to HTTP.

    QuantserveError
    ├── ConfigError                  start-up only
    │   ├── SourceError
    │   ├── DamagedArtifact
    │   └── MayPass
    ├── StartError                   start-up only
    ├── ServiceEnded                 the command alone
    └── RequestError                 carries status, code, param
        ├── Malformed                400
        ├── ConflictingChoice        400
        ├── Unauthorized             401
        ├── Unknown                  404
        ├── MethodNotAllowed         405
        ├── BodyTooSlow              408
        ├── TooLarge                 413
        ├── InvalidField             422
        │   ├── TooManyTokens        400
        │   ├── InputFails           422
        │   └── CannotScore          422
        ├── QueueFull                429  retry_after_s
        ├── InternalError            500
        ├── NotReady                 503  retry_after_s
        └── DeadlineExceeded         504

Every argument reaches ``Exception.__init__``, so that an error survives pickling between processes.
"""

from __future__ import annotations


class QuantserveError(Exception):
    """Base of every error that quantserve raises on purpose."""


class ConfigError(QuantserveError):
    """The configuration cannot be served; the message names the key and what would be right."""


class StartError(QuantserveError):
    """The service did not come up; the message says which part and where its logs are."""


class ServiceEnded(QuantserveError):
    """The service has lost what it cannot go on without; the message says what and how it ended."""


class SourceError(ConfigError):
    """A model's source is missing or not allowed; the message names what was looked for."""


class DamagedArtifact(ConfigError):
    """An artifact is not what was written to the store; the message names the file."""


class MayPass(ConfigError):
    """What was asked for is right, but the machine could not do it now: no memory, a full disk.

    Whoever gets it may try again later; every other ``ConfigError`` would come again.
    """


class RequestError(QuantserveError):
    """A request that gets a 4xx or 5xx answer.

    Args:
        message: What was wrong, where, and what would be right.
        param: The request field or header at fault, if there is one.
        retry_after_s: Whole seconds after which a retry makes sense, sent as ``Retry-After``.
    """

    status = 500
    type = "server_error"
    code = "internal_error"

    def __init__(
        self, message: str, param: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message, param, retry_after_s)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.message


class Malformed(RequestError):
    """The body is not JSON, or not the shape that the route reads."""

    status, type, code = 400, "invalid_request_error", "malformed_request"


class ConflictingChoice(RequestError):
    """A request names two different models or variants."""

    status, type, code = 400, "invalid_request_error", "conflicting_choice"


class Unauthorized(RequestError):
    """The API key is missing or wrong."""

    status, type, code = 401, "authentication_error", "invalid_api_key"


class Unknown(RequestError):
    """No such model, variant or route; the message lists the known ones."""

    status, type, code = 404, "invalid_request_error", "not_found"


class MethodNotAllowed(RequestError):
    """The route exists, but not for this HTTP method."""

    status, type, code = 405, "invalid_request_error", "method_not_allowed"


class BodyTooSlow(RequestError):
    """The body took ``server.request_timeout_s`` to arrive, or left no time for the answer."""

    status, type, code = 408, "invalid_request_error", "body_too_slow"


class TooLarge(RequestError):
    """The body exceeds ``server.max_body_bytes``."""

    status, type, code = 413, "invalid_request_error", "body_too_large"


class InvalidField(RequestError):
    """A field is unknown, of the wrong type or outside its limits."""

    status, type, code = 422, "invalid_request_error", "invalid_field"


class TooManyTokens(InvalidField):
    """A text, or a prompt with its continuation, is longer than the model takes.

    Code and status are OpenAI's, by which clients know that they have to shorten what they send.
    Some look for words instead, so messages about a prompt say "prompt is too long".
    """

    status, code = 400, "context_length_exceeded"


class InputFails(InvalidField):
    """The model fails on this input, though it still answers one that it has answered before."""

    code = "model_fails_on_input"


class CannotScore(InvalidField):
    """The variant's engine does not say how probable given tokens are, of any request."""

    code = "cannot_score"


class QueueFull(RequestError):
    """The variant's queue holds as many requests as it may."""

    status, type, code = 429, "rate_limit_error", "queue_full"


class InternalError(RequestError):
    """An error that nobody foresaw; its details are in the log, under the request id."""

    status, type, code = 500, "server_error", "internal_error"


class NotReady(RequestError):
    """The variant is still loading, or failed to load."""

    status, type, code = 503, "server_error", "variant_not_ready"


class DeadlineExceeded(RequestError):
    """The answer did not come within ``server.request_timeout_s``."""

    status, type, code = 504, "server_error", "deadline_exceeded"
