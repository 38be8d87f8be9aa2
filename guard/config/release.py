"""Settings of the key-release hook, `[gateway.key_release]`."""

from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Meta, Struct

Released = Literal["secret", "audit", "suspects"]


class KeyRelease(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A command that hands out keys, for instance once this machine has been attested."""

    command: Annotated[
        list[str],
        Meta(
            description="program and arguments that write a key to their output; the key's name"
            " is added as the last argument; empty: keys come from files"
        ),
    ] = []
    keys: Annotated[
        list[Released],
        Meta(
            description="what it hands out: `secret` instead of `secret_file`, `audit` and"
            " `suspects` instead of their `key_file`"
        ),
    ] = []
    timeout: Annotated[float, Meta(gt=0, description="seconds that it may take for one key")] = 30.0


def release_problems(
    release: KeyRelease, secret_file: str, audit_key_file: str
) -> Iterator[tuple[str, str]]:
    """Settings that contradict each other: key and complaint."""
    if bool(release.command) != bool(release.keys):
        yield "gateway.key_release", "command and keys go together"
    elif release.command and not release.command[0].startswith("/"):
        yield "gateway.key_release.command", "must name a program by its whole path"
    for name, key, path in (
        ("secret", "gateway.secret_file", secret_file),
        ("audit", "gateway.audit.key_file", audit_key_file),
    ):
        if name in release.keys and path:
            yield key, f"must not be set: gateway.key_release hands out {name!r}"
