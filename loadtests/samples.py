"""The raw samples of a load test: one row per planned request, as columns that pack into JSON."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, PlainSerializer, PlainValidator

OK = "ok"
CUT_OFF = "cut_off"
"""It still ran when the grace after a turn was over."""

NOT_SENT = "not_sent"
"""Too many were in flight."""

NO_DONE = "no_done"
"""A stream ended without its last event, ``data: [DONE]``."""

_ABSENT = np.iinfo(np.int64).min
_SCALE = 1e6

Floats = NDArray[np.float64]


def pack(column: Floats) -> str:
    """Millionths as little-endian int64, deflated, in base64; NaN is the least int64."""
    whole = np.where(np.isnan(column), 0, np.round(column * _SCALE)).astype("<i8")
    whole[np.isnan(column)] = _ABSENT
    return base64.b64encode(zlib.compress(whole.tobytes(), 6)).decode()


def unpack(value: Any) -> Floats:
    """The inverse of ``pack``, to a millionth; an array is taken as it is.

    Raises:
        ValueError: The text is no packed column.
    """
    if isinstance(value, np.ndarray):
        return value.astype(np.float64)
    try:
        whole = np.frombuffer(zlib.decompress(base64.b64decode(value)), "<i8")
    except (TypeError, binascii.Error, zlib.error) as error:
        raise ValueError(f"not a packed column of samples: {error}") from None
    return np.where(whole == _ABSENT, np.nan, whole / _SCALE)


Column = Annotated[Floats, PlainValidator(unpack), PlainSerializer(pack, return_type=str)]
"""(requests,) float64; NaN where there is nothing."""


class RequestSamples(BaseModel):
    """The measured requests of one variant, warm-up left out. Times are seconds.

    Times count from the start of the measured part of the request's own turn.

    Attributes:
        round: Which round, from 0.
        index: Which request of the round, from 0, warm-up counted; two variants' rows of the same
            round and index had the same input and the same planned time.
        planned: When the request should go out.
        sent: When it was handed to the HTTP client; NaN if it never was.
        first: When the first event with text, reasoning or a part of a tool call came; only of
            streams.
        last: When the last event of a choice came, a finish reason included; only of streams.
        ended: When the whole answer was there, or the error; of a request that was cut off, when it
            was given up.
        outcome: Index into ``outcomes``.
        output_tokens: As the answer's usage says; of a stream without usage, events with something
            generated.
        in_flight: Requests under way when this one went out, itself included.
        agreement: Of the answer with the reference's to the same request, as ``Agreement.measure``
            says, 0 and 1 for what is the same or not; NaN where the two were not compared.
        outcomes: ``ok``, ``cut_off``, ``not_sent`` (too many in flight), ``timeout``,
            ``connection``, ``http_STATUS``, ``error_answer`` (an error with status 200),
            ``stream_error`` (an event that is an error or has another form), ``no_done``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    round: Column
    index: Column
    planned: Column
    sent: Column
    first: Column
    last: Column
    ended: Column
    outcome: Column
    output_tokens: Column
    in_flight: Column
    agreement: Column
    outcomes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.planned)

    @property
    def is_ok(self) -> NDArray[np.bool_]:
        """Which requests were answered with success, in time."""
        return self.had(OK)

    @property
    def is_cut_off(self) -> NDArray[np.bool_]:
        """Which requests still ran when the grace was over."""
        return self.had(CUT_OFF)

    def had(self, outcome: str) -> NDArray[np.bool_]:
        """Which requests had this outcome."""
        if outcome not in self.outcomes:
            return np.zeros(len(self), np.bool_)
        matches: NDArray[np.bool_] = self.outcome == self.outcomes.index(outcome)
        return matches

    @property
    def latency(self) -> Floats:
        """From the planned time to the end of the answer: what a user feels."""
        return self._of_ok(self.ended - self.planned)

    @property
    def latency_from_send(self) -> Floats:
        """From the actual send to the end of the answer."""
        return self._of_ok(self.ended - self.sent)

    @property
    def ttft(self) -> Floats:
        """Time to first token, from the planned time; also of a stream that was cut off later."""
        return np.where(self.is_ok | self.is_cut_off, self.first - self.planned, np.nan)

    @property
    def ttft_from_send(self) -> Floats:
        """Likewise, from the actual send."""
        return np.where(self.is_ok | self.is_cut_off, self.first - self.sent, np.nan)

    @property
    def tpot(self) -> Floats:
        """Time per output token: (last - first) / (tokens - 1); NaN for a single token."""
        steps = np.where(self.output_tokens > 1, self.output_tokens - 1, np.nan)
        return self._of_ok((self.last - self.first) / steps)

    @property
    def lag(self) -> Floats:
        """How late the generator sent: actual send - planned time; NaN if it never did."""
        return self.sent - self.planned

    def with_agreement(self, by_request: Mapping[tuple[int, int], float]) -> RequestSamples:
        """The same with the column ``agreement`` from values by round and index."""
        keys = zip(self.round.astype(int).tolist(), self.index.astype(int).tolist(), strict=True)
        column = np.array([by_request.get(key, np.nan) for key in keys], np.float64)
        return self.model_copy(update={"agreement": column})

    def where(self, keep: NDArray[np.bool_]) -> RequestSamples:
        """Some of the rows."""
        return self._map(lambda column: column[keep])

    def _of_ok(self, column: Floats) -> Floats:
        return np.where(self.is_ok, column, np.nan)

    def _map(self, change: Callable[[Floats], Floats]) -> RequestSamples:
        columns = {name: change(getattr(self, name)) for name in COLUMNS}
        return RequestSamples(**columns, outcomes=self.outcomes)


COLUMNS = tuple(name for name in RequestSamples.model_fields if name != "outcomes")
