"""Who is calling. Handlers ask `current()`; it costs a context variable.

    identity = current()
    identity.name      "spiffe://prod/camera-7", "cn:operations", "jwt:alice", or "anonymous"
    identity.roles     what they may do, by `permissions.py`
    identity.tenant    whose budget they share, their own name where the settings say nothing

Where no identity is configured everybody is `ANONYMOUS`, who has every role.
"""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, get_args

from guard.config.access import Role

Kind = Literal["anonymous", "certificate", "token"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, slots=True)
class Identity:
    """One caller. Its name is for limits and the audit log, never for a metric's label."""

    name: str
    roles: frozenset[Role]
    tenant: str
    kind: Kind


ANONYMOUS = Identity("anonymous", frozenset(ROLES), "anonymous", "anonymous")
CURRENT: ContextVar[Identity] = ContextVar("guard_identity", default=ANONYMOUS)


def current() -> Identity:
    """Who makes the call that is being handled."""
    return CURRENT.get()
