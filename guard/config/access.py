"""Settings of who may call: TLS, identities, what each may do, and when a port may be open."""

import ipaddress
from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

Role = Literal["client", "operator", "analyst", "trainer", "approver", "auditor", "privacy"]
Algorithm = Literal[
    "EdDSA", "ES256", "ES384", "ES512",
    "PS256", "PS384", "PS512", "RS256", "RS384", "RS512",
]  # fmt: skip
# Asymmetric ones only: what checks a token must never be able to make one.


class ServerTls(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Certificates of the gateway's own ports."""

    cert: Annotated[
        str, Meta(description="PEM file of the gateway's certificate and chain, for every port")
    ] = ""
    key: Annotated[str, Meta(description="PEM file of its private key")] = ""
    client_ca: Annotated[
        str,
        Meta(
            description="PEM file of the authorities whose certificates every client must show one"
            " of; empty: no client certificates"
        ),
    ] = ""


class Tokens(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """JSON Web Tokens in `authorization: Bearer`."""

    keys: Annotated[
        str,
        Meta(description="file of public keys, JWKS or PEM, that sign tokens; empty: no tokens"),
    ] = ""
    issuer: Annotated[str, Meta(description="the `iss` that a token must have")] = ""
    audience: Annotated[str, Meta(description="the `aud` that a token must have")] = ""
    algorithms: Annotated[
        list[Algorithm],
        Meta(min_length=1, description="signatures accepted; a key serves its own kind only"),
    ] = field(default_factory=lambda: ["EdDSA", "ES256", "RS256"])
    leeway: Annotated[
        float, Meta(ge=0, le=120, description="seconds that clocks may differ for `exp` and `nbf`")
    ] = 30.0
    roles_claim: Annotated[
        str, Meta(description="claim that lists roles by name; empty: grants alone give roles")
    ] = ""


class Grant(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Roles for those whose name matches."""

    match: Annotated[
        str,
        Meta(
            min_length=1,
            description="`spiffe://DOMAIN/PATH`, `cn:NAME` (certificates) or `jwt:SUBJECT`;"
            " a `*` after the last `/` or `:` stands for any rest",
        ),
    ]
    roles: Annotated[
        list[Role], Meta(min_length=1, description="what they are; all roles of all matches add up")
    ]
    tenant: Annotated[str, Meta(description="whose budget they share; empty: their own")] = ""


class Identities(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How callers are known, and what each is."""

    tokens: Annotated[Tokens, Meta(description="JSON Web Tokens")] = Tokens()
    grants: Annotated[
        list[Grant], Meta(description="who has which roles; nobody else has any")
    ] = []


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches HOST:PORT."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def access_problems(
    tls: ServerTls, identity: Identities, ports: dict[str, str], *, insecure: bool
) -> Iterator[tuple[str, str]]:
    """Key and complaint for what contradicts itself or leaves a port open; `ports`: by key."""
    tokens = identity.tokens
    if bool(tls.cert) != bool(tls.key):
        yield "gateway.tls", "cert and key go together"
    if tls.client_ca and not tls.cert:
        yield "gateway.tls.client_ca", "needs cert and key: certificates are shown over TLS"
    if tokens != Tokens() and not (tokens.keys and tokens.issuer and tokens.audience):
        yield "gateway.identity.tokens", "keys, issuer and audience must all be set"
    yield from _grant_problems(tls, identity)
    for key, address in ports.items():
        if address and not insecure and not is_loopback(address):
            yield from ((key, text) for text in _exposure(tls, identity, address))


def _exposure(tls: ServerTls, identity: Identities, address: str) -> Iterator[str]:
    way_out = "or say gateway.insecure = true"
    if not tls.client_ca and not identity.tokens.keys:
        yield (
            f"{address} is open to the network and nobody is asked who they are: set "
            f"gateway.tls.client_ca or gateway.identity.tokens, {way_out}"
        )
    elif not tls.cert:
        yield f"tokens would cross the network at {address} unencrypted: set gateway.tls, {way_out}"


def _grant_problems(tls: ServerTls, identity: Identities) -> Iterator[tuple[str, str]]:
    known = bool(tls.client_ca or identity.tokens.keys)
    if identity.grants and not known:
        yield "gateway.identity.grants", "nobody can be told apart: set tls.client_ca or tokens"
    if known and not identity.grants and not identity.tokens.roles_claim:
        yield "gateway.identity.grants", "without a grant (or tokens.roles_claim) nobody may call"
    for index, grant in enumerate(identity.grants):
        key, match = f"gateway.identity.grants[{index}].match", grant.match
        kind, colon, name = match.partition(":")
        if kind not in ("spiffe", "cn", "jwt") or not colon or not name:
            yield key, f"{match!r} is not spiffe://DOMAIN/PATH, cn:NAME or jwt:SUBJECT"
        elif kind == "spiffe" and not _names_a_domain(match):
            yield key, f"{match!r} must name a trust domain: spiffe://DOMAIN/PATH"
        elif "*" in match[:-1] or (match.endswith("*") and match[-2] not in "/:"):
            yield key, f"{match!r}: a * may only stand at the end, after / or :"
        elif kind == "jwt" and not identity.tokens.keys:
            yield key, "needs gateway.identity.tokens"
        elif kind != "jwt" and not tls.client_ca:
            yield key, "needs gateway.tls.client_ca"


def _names_a_domain(match: str) -> bool:
    prefix, _, rest = match.partition("://")
    domain, slash, path = rest.partition("/")
    return prefix == "spiffe" and bool(domain and slash and path) and "*" not in domain
