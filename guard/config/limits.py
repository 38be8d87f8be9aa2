"""Settings of how much one caller may ask, `[gateway.limits]`."""

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta, Struct, field

from guard.config.access import Role


class Rule(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Other limits for those whose name or role fits; what it does not say stays as it is."""

    match: Annotated[
        str,
        Meta(description="a caller's name, as in grants; a `*` at its end stands for any rest"),
    ] = ""
    role: Annotated[Role | None, Meta(description="a role; with `match`, both must fit")] = None
    images_per_second: Annotated[
        Annotated[float, Meta(ge=0)] | None, Meta(description="instead of the general one")
    ] = None
    burst: Annotated[
        Annotated[int, Meta(ge=0)] | None, Meta(description="instead of the general one")
    ] = None
    images_per_day: Annotated[
        Annotated[int, Meta(ge=0)] | None, Meta(description="instead of the general one")
    ] = None


class Limits(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much each caller may ask: who is known by name, everybody else by network address."""

    images_per_second: Annotated[
        float, Meta(ge=0, description="images that a caller may send a second; 0: no limit")
    ] = 0.0
    burst: Annotated[
        int,
        Meta(
            ge=0,
            description="images that a caller who was quiet may send at once, and so the largest"
            " request; 0: as many as in one second",
        ),
    ] = 0
    images_per_day: Annotated[
        int, Meta(ge=0, description="images in 24 hours from a caller's first; 0: no limit")
    ] = 0
    rules: Annotated[
        list[Rule], Meta(description="other limits for some; the first that fits counts")
    ] = field(default_factory=list)
    max_callers: Annotated[
        int,
        Meta(
            ge=1,
            description="callers remembered; beyond them strangers share one limit until some are"
            " forgotten",
        ),
    ] = 65_536
    max_wait: Annotated[
        float,
        Meta(
            gt=0,
            description="seconds that an answer may be expected to take while others are worked on;"
            " longer, or past the caller's deadline: refused at once",
        ),
    ] = 10.0
    max_connections: Annotated[
        int, Meta(ge=1, description="connections at once; one more is closed as soon as it is made")
    ] = 1024
    max_open_calls: Annotated[
        int,
        Meta(
            ge=1,
            description="calls at once, from their heads on, shared out among the connections",
        ),
    ] = 2048
    body_timeout: Annotated[
        float, Meta(gt=0, description="seconds that a request's bytes may take to arrive")
    ] = 20.0
    compression: Annotated[
        bool,
        Meta(
            description="take compressed requests; one of kilobytes may then cost several times"
            " `gateway.max_message_bytes`"
        ),
    ] = False


def limits_problems(limits: Limits) -> Iterator[tuple[str, str]]:
    """Key and complaint for rules that cannot fit anybody, or limit nothing."""
    if limits.max_open_calls < limits.max_connections:
        yield "gateway.limits.max_open_calls", "is one for each of max_connections at least"
    if limits.burst and not limits.images_per_second:
        yield "gateway.limits.burst", "needs images_per_second"
    for index, rule in enumerate(limits.rules):
        key = f"gateway.limits.rules[{index}]"
        rate = rule.images_per_second
        if not rule.match and not rule.role:
            yield key, "needs match or role"
        elif "*" in rule.match[:-1]:
            yield f"{key}.match", f"{rule.match!r}: a * may only stand at the end"
        elif (rate, rule.burst, rule.images_per_day) == (None, None, None):
            yield key, "says no limit"
        elif rule.burst and not (limits.images_per_second if rate is None else rate):
            yield f"{key}.burst", "needs images_per_second"
