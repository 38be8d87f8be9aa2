"""Who is calling. Handlers ask `current()`; it costs a context variable.

    identity = current()
    identity.name      "spiffe://prod/camera-7", "cn:operations", "jwt:alice", or "anonymous"
    identity.roles     what they may do, by `permissions.py`
    identity.tenant    whose budget they share, their own name where the settings say nothing

Where no identity is configured everybody is `ANONYMOUS`, who has every role.
"""

import re
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, cast, get_args

from guard.config.access import Grant, Identities, Role, ServerTls
from guard.gateway.status import UnauthenticatedError
from guard.gateway.tokens import TokenReader

Kind = Literal["anonymous", "certificate", "token", "password"]
ROLES: tuple[Role, ...] = get_args(Role)
LONGEST_NAME = 2048  # of a SPIFFE id, by its standard
# https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md, without dot segments.
_SPIFFE = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/(?!\.\.?(/|\Z))[A-Za-z0-9._-]+)+\Z")


@dataclass(frozen=True, slots=True)
class Identity:
    """One caller. Its name is for limits and the audit log, never for a metric's label."""

    name: str
    roles: frozenset[Role]
    tenant: str
    kind: Kind
    scope: str = ""  # the tenant that a grant names; whoever has none sees every tenant's suspects


ANONYMOUS = Identity("anonymous", frozenset(ROLES), "anonymous", "anonymous")
CURRENT: ContextVar[Identity] = ContextVar("guard_identity", default=ANONYMOUS)


def current() -> Identity:
    """Who makes the call that is being handled."""
    return CURRENT.get()


class Authenticator:
    """Turns what a caller shows into an Identity, by the settings.

    A token that is shown is what counts, and has to be good, even beside a good certificate.
    `certificates`: whether every caller has shown one before it could say anything.
    """

    def __init__(self, tls: ServerTls, identity: Identities) -> None:
        self.certificates = bool(tls.client_ca)
        self._tokens = TokenReader(identity.tokens) if identity.tokens.keys else None
        self._grants = tuple(identity.grants)
        self._granted = lru_cache(maxsize=1024)(self._look_up)

    def by_token(self, authorization: Sequence[str | bytes]) -> Identity | None:
        """Who the `authorization` headers say; None where the certificate has to tell.

        Raises UnauthenticatedError for anything but one good token or, with certificates, none.
        """
        if self._tokens is None or not authorization:
            if self.certificates:
                return None
            raise UnauthenticatedError("missing")
        scheme, _, token = str(authorization[0]).partition(" ")
        if len(authorization) != 1 or scheme.lower() != "bearer":
            raise UnauthenticatedError("malformed")
        claims = self._tokens.read(token.strip())
        found = self._granted(f"jwt:{claims.subject}", "token")
        roles = found.roles.union(cast("tuple[Role, ...]", set(claims.roles).intersection(ROLES)))
        return replace(found, roles=roles)

    def by_certificate(self, uris: Sequence[str], common_names: Sequence[str]) -> Identity:
        """Who a verified certificate names: its one SPIFFE id, or else its common name.

        Raises UnauthenticatedError for several ids, a malformed one, or no name at all.
        """
        if any(uri.lower().startswith("spiffe:") for uri in uris):
            if len(uris) != 1 or len(uris[0]) > LONGEST_NAME or not _SPIFFE.match(uris[0]):
                raise UnauthenticatedError("certificate")
            return self._granted(uris[0], "certificate")
        name = common_names[0] if len(common_names) == 1 else ""
        if not name.strip() or not name.isprintable():
            raise UnauthenticatedError("certificate")
        return self._granted(f"cn:{name}", "certificate")

    def _look_up(self, name: str, kind: Kind) -> Identity:
        grants = [grant for grant in self._grants if matches(grant, name)]
        roles = frozenset(role for grant in grants for role in grant.roles)
        scope = next((grant.tenant for grant in grants if grant.tenant), "")
        return Identity(name, roles, scope or name, kind, scope)


def matches(grant: Grant, name: str) -> bool:
    """Whether a grant is for this name."""
    if grant.match.endswith("*"):
        return name.startswith(grant.match[:-1])
    return name == grant.match
