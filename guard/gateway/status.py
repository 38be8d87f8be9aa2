"""From errors to gRPC statuses: the one table.

Clients read the status code; programs read `google.rpc.ErrorInfo` (domain "guard") in the standard
trailing metadata; people read the message. Only errors raised on purpose show their text. Anything
else is INTERNAL with an id that finds the traceback in the log.
"""

import asyncio
import logging
import math
import secrets
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import grpc

from guard.errors import (
    AuditError,
    GuardError,
    InputError,
    NumericError,
    OverloadedError,
    PackError,
    StoreError,
    UnknownModelError,
    UnknownSuspectError,
    UpstreamError,
)
from guard.gateway import protocol
from guard.metrics import AuthFailure, Reason

Code = grpc.StatusCode
DOMAIN = "guard"
PUSHBACK = "grpc-retry-pushback-ms"
LONGEST = 600  # characters of a message: it travels in a header
MAX_SUSPECTS = 32  # ids in an error: it travels in a header, too
log = logging.getLogger(__name__)


class AdversarialInputError(GuardError):
    """No image of the request may be answered; `id` names the case without saying more.

    suspects: ids of the images that are kept, in order, "" for one that is not.
    """

    def __init__(
        self,
        message: str,
        *,
        id: str,  # noqa: A002 (its name on the wire)
        suspects: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.id, self.suspects = id, suspects


class NotExposedError(GuardError):
    """The caller asks for more of the verdict than the policy shows."""


class NotOfferedError(GuardError):
    """The call exists elsewhere, but would carry pixels or models past the defence."""


class UnauthenticatedError(GuardError):
    """Nobody knows who calls; `cause` is for the operator, the text tells a stranger little."""

    def __init__(self, cause: AuthFailure) -> None:
        texts = {"missing": "credentials are needed", "expired": "the credentials have expired"}
        super().__init__(texts.get(cause, "the credentials are not valid"))
        self.cause: AuthFailure = cause


class ForbiddenError(GuardError):
    """The caller is known, and may not do this."""


class RateLimitedError(OverloadedError):
    """The caller sends more a second than it may; `retry_after` is infinite where it cannot fit."""


class BudgetSpentError(OverloadedError):
    """The caller has sent all it may in 24 hours."""


class DefenseError(GuardError):
    """The defence itself failed or was late, and the policy lets nothing pass unexamined."""


class LateDefenseError(DefenseError):
    """The defence did not finish within `evidence_timeout`."""


class Row(NamedTuple):
    """What one kind of error becomes: gRPC code, ErrorInfo reason, label of guard_errors_total."""

    code: grpc.StatusCode
    reason: str
    metric: Reason


TABLE: dict[type[BaseException], Row] = {
    InputError: Row(Code.INVALID_ARGUMENT, "INVALID_INPUT", "input"),
    UnknownModelError: Row(Code.NOT_FOUND, "UNKNOWN_MODEL", "unknown_model"),
    NotExposedError: Row(Code.PERMISSION_DENIED, "NOT_EXPOSED", "refused"),
    NotOfferedError: Row(Code.UNIMPLEMENTED, "NOT_OFFERED", "refused"),
    UnauthenticatedError: Row(Code.UNAUTHENTICATED, "UNAUTHENTICATED", "unauthenticated"),
    ForbiddenError: Row(Code.PERMISSION_DENIED, "FORBIDDEN", "forbidden"),
    OverloadedError: Row(Code.RESOURCE_EXHAUSTED, "OVERLOADED", "overloaded"),
    RateLimitedError: Row(Code.RESOURCE_EXHAUSTED, "RATE_LIMITED", "rate_limited"),
    BudgetSpentError: Row(Code.RESOURCE_EXHAUSTED, "BUDGET_SPENT", "budget_spent"),
    AuditError: Row(Code.UNAVAILABLE, "NOT_AUDITED", "not_audited"),
    StoreError: Row(Code.UNAVAILABLE, "STORE", "store"),
    UnknownSuspectError: Row(Code.NOT_FOUND, "UNKNOWN_SUSPECT", "unknown_suspect"),
    PackError: Row(Code.FAILED_PRECONDITION, "PACK_REFUSED", "pack"),
    AdversarialInputError: Row(Code.FAILED_PRECONDITION, "ADVERSARIAL_INPUT", "blocked"),
    NumericError: Row(Code.INTERNAL, "NON_FINITE", "non_finite"),
    DefenseError: Row(Code.INTERNAL, "DEFENSE_FAILED", "defense"),
    LateDefenseError: Row(Code.INTERNAL, "DEFENSE_FAILED", "defense_late"),
    UpstreamError: Row(Code.INTERNAL, "UPSTREAM", "upstream"),  # or the upstream's own code
    TimeoutError: Row(Code.DEADLINE_EXCEEDED, "DEADLINE", "deadline"),
    asyncio.CancelledError: Row(Code.CANCELLED, "CANCELLED", "cancelled"),
}
UNEXPECTED = Row(Code.INTERNAL, "INTERNAL", "internal")


class Failure(NamedTuple):
    """A failed call as gRPC sends it."""

    code: grpc.StatusCode
    message: str
    trailing: tuple[tuple[str, str | bytes], ...]
    metric: Reason


def new_id() -> str:
    """An opaque id: tells a caller's case apart and nothing else."""
    return secrets.token_hex(8)


def row_of(error: BaseException) -> Row:
    """The table's row for this error; the nearest base class counts."""
    for kind in type(error).__mro__:
        if kind in TABLE:
            return TABLE[kind]
    return UNEXPECTED


def code_of(error: BaseException) -> grpc.StatusCode:
    """The status this error becomes: the table's, or the upstream's own."""
    if isinstance(error, UpstreamError) and error.code in Code.__members__:
        return Code[str(error.code)]
    return row_of(error).code


def failure(error: BaseException) -> Failure:
    """What to answer instead of a result. An unexpected error is logged with its traceback."""
    _, reason, metric = row_of(error)
    code = code_of(error)
    facts: dict[str, str] = {}
    if isinstance(error, InputError) and error.tensor:
        facts["tensor"] = _printable(error.tensor[:200])
    if isinstance(error, AdversarialInputError):
        facts["id"] = error.id
        if any(shown := error.suspects[:MAX_SUSPECTS]):
            facts["suspect_id"] = ",".join(shown)
    if isinstance(error, GuardError):
        message = _printable(str(error)[:LONGEST])
    elif isinstance(error, TimeoutError):
        message = "the request ran out of time"
    else:
        facts["id"] = new_id()
        message = f"internal error {facts['id']}"
        log.error("internal error %s", facts["id"], exc_info=error)
    details = [protocol.ErrorInfo(reason=reason, domain=DOMAIN, metadata=facts)]
    pushback: tuple[tuple[str, str | bytes], ...] = ()
    if isinstance(error, OverloadedError):
        pushback = ((PUSHBACK, _pushback(error.retry_after)),)
        if math.isfinite(error.retry_after):
            details.append(_retry(error.retry_after))
    return Failure(code, message, (*_trailing(code, message, details), *pushback), metric)


def _printable(text: str) -> str:
    """One line: the caller's own words are in it, and end up in somebody's log."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _retry(seconds: float) -> protocol.Message:
    info = protocol.RetryInfo()
    info.retry_delay.seconds = int(seconds)
    info.retry_delay.nanos = int(seconds % 1 * 1e9)
    return info


def _pushback(seconds: float) -> str:
    """For gRPC's own retries (proposal A6): milliseconds to wait; negative: do not try again."""
    return str(math.ceil(seconds * 1000)) if math.isfinite(seconds) else "-1"


def _trailing(
    code: grpc.StatusCode, message: str, details: Iterable[protocol.Message]
) -> tuple[tuple[str, str | bytes], ...]:
    return ((protocol.STATUS_DETAILS, protocol.rich_status(code.value[0], message, details)),)
