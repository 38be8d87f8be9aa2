"""Settings of how much one caller may ask, `[gateway.limits]`."""

from collections.abc import Callable, Iterator
from typing import Annotated

from msgspec import Meta, Struct, field, structs

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
    redis: Annotated[
        str,
        Meta(
            description="`redis://HOST:PORT/DB` or `rediss://` (TLS) where gateways count together;"
            " empty: each by itself"
        ),
    ] = ""
    redis_ca: Annotated[
        str, Meta(description="PEM file of the authorities of a rediss://; empty: the system's")
    ] = ""
    redis_password_file: Annotated[str, Meta(description="file with Redis's password")] = ""
    redis_timeout: Annotated[
        float, Meta(gt=0, description="seconds that a request waits for Redis at most")
    ] = 0.05
    replicas: Annotated[
        int,
        Meta(
            ge=1,
            description="gateways that share the Redis: while it fails each allows its part",
        ),
    ] = 1
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


def limits_at(limits: Limits, at: Callable[[str], str]) -> Limits:
    """The same settings with paths made by `at`."""
    return structs.replace(
        limits,
        redis_ca=at(limits.redis_ca),
        redis_password_file=at(limits.redis_password_file),
    )


def _redis_problems(limits: Limits) -> Iterator[tuple[str, str]]:
    key, address = "gateway.limits.redis", limits.redis
    if not address:
        if limits.redis_ca or limits.redis_password_file or limits.replicas > 1:
            yield key, "must be set where redis_ca, redis_password_file or replicas is"
        return
    if not address.startswith(("redis://", "rediss://")):
        yield key, "must be redis://HOST:PORT or rediss://HOST:PORT"
    elif ":" in address.partition("://")[2].rpartition("@")[0]:
        yield key, "no password here: use redis_password_file"
    if limits.redis_ca and not address.startswith("rediss://"):
        yield "gateway.limits.redis_ca", "is only used with rediss://"


def limits_problems(limits: Limits) -> Iterator[tuple[str, str]]:
    """Key and complaint for rules that cannot fit anybody, or limit nothing."""
    yield from _redis_problems(limits)
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
