"""The table from errors to statuses."""

import logging

import grpc
import pytest

from guard import errors
from guard.gateway import protocol, status


def subclasses(kind: type[errors.GuardError]) -> set[type[errors.GuardError]]:
    """Every error class below this one."""
    below = set(kind.__subclasses__())
    return below.union(*(subclasses(child) for child in below))


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (errors.InputError("x", tensor="images"), "INVALID_ARGUMENT", "INVALID_INPUT"),
        (errors.UnknownModelError("x"), "NOT_FOUND", "UNKNOWN_MODEL"),
        (errors.OverloadedError("x"), "RESOURCE_EXHAUSTED", "OVERLOADED"),
        (status.RateLimitedError("x"), "RESOURCE_EXHAUSTED", "RATE_LIMITED"),
        (status.BudgetSpentError("x"), "RESOURCE_EXHAUSTED", "BUDGET_SPENT"),
        (errors.UpstreamError("x"), "INTERNAL", "UPSTREAM"),
        (errors.UpstreamError("x", code="NOT_FOUND"), "NOT_FOUND", "UPSTREAM"),
        (errors.UpstreamError("x", code="nonsense"), "INTERNAL", "UPSTREAM"),
        (errors.NumericError("x"), "INTERNAL", "NON_FINITE"),
        (status.AdversarialInputError("x", id="1"), "FAILED_PRECONDITION", "ADVERSARIAL_INPUT"),
        (status.NotExposedError("x"), "PERMISSION_DENIED", "NOT_EXPOSED"),
        (status.NotOfferedError("x"), "UNIMPLEMENTED", "NOT_OFFERED"),
        (status.DefenseError("x"), "INTERNAL", "DEFENSE_FAILED"),
        (TimeoutError(), "DEADLINE_EXCEEDED", "DEADLINE"),
        (KeyError("x"), "INTERNAL", "INTERNAL"),
    ],
)
def test_every_error_has_its_code_and_a_reason_for_programs(
    error: Exception, code: str, reason: str
) -> None:
    """Code, message and ErrorInfo agree, and the trailer repeats the code."""
    failed = status.failure(error)
    assert failed.code is grpc.StatusCode[code]
    key, value = failed.trailing[0]
    assert key == protocol.STATUS_DETAILS
    assert isinstance(value, bytes)
    info = protocol.error_info(value)
    assert info is not None
    assert (info.reason, info.domain) == (reason, "guard")
    assert protocol.RichStatus.FromString(value).code == failed.code.value[0]


def test_facts_travel_as_metadata() -> None:
    """The tensor at fault and the opaque id can be read by a program."""
    for error, fact in (
        (errors.InputError("x", tensor="images"), ("tensor", "images")),
        (status.AdversarialInputError("x", id="abc"), ("id", "abc")),
    ):
        info = protocol.error_info(bytes(status.failure(error).trailing[0][1]))  # type: ignore[arg-type]
        assert info is not None
        assert dict(info.metadata) == dict([fact])


def test_overload_says_when_to_come_back() -> None:
    """RESOURCE_EXHAUSTED carries a RetryInfo with the delay."""
    trailer = status.failure(errors.OverloadedError("x", retry_after=1.5)).trailing[0][1]
    details = protocol.RichStatus.FromString(trailer).details
    retry = protocol.RetryInfo.FromString(details[1].value)
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (1, 500_000_000)
    failed = status.failure(errors.OverloadedError("x", retry_after=1.5))
    assert dict(failed.trailing)[status.PUSHBACK] == "1500"


def test_an_unexpected_error_leaks_nothing_but_an_id(caplog: pytest.LogCaptureFixture) -> None:
    """Paths and stacks stay in the log, where the id finds them."""
    with caplog.at_level(logging.ERROR):
        failed = status.failure(RuntimeError("/secret/path at line 7"))
    assert "secret" not in failed.message
    assert failed.message.split()[-1] in caplog.text
    assert "secret" not in repr(failed.trailing)


def test_a_long_message_fits_a_header() -> None:
    """A client's own megabyte of tensor name cannot break the reply."""
    failed = status.failure(errors.InputError("x" * 10_000, tensor="y" * 10_000))
    assert len(failed.message) <= status.LONGEST
    assert len(failed.trailing[0][1]) < 2_000


def test_no_error_of_the_core_is_forgotten() -> None:
    """Errors that can reach a request have a row of their own; set-up errors never do."""
    set_up = {errors.ConfigError, errors.PackError}
    core = {kind for kind in subclasses(errors.GuardError) if kind.__module__ == "guard.errors"}
    assert core - set_up <= set(status.TABLE)
