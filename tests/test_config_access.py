"""The settings of who may call: what is refused, and that no port is open by mistake."""

from pathlib import Path

import pytest

from guard.config import load_config, single_pack_config
from guard.config.access import is_loopback
from guard.errors import ConfigError

TLS = '[gateway.tls]\ncert = "c.pem"\nkey = "k.pem"\nclient_ca = "ca.pem"\n'
TOKENS = (
    '[gateway.identity.tokens]\nkeys = "k.json"\nissuer = "https://i.test"\naudience = "guard"\n'
)
GRANT = '[[gateway.identity.grants]]\nmatch = "spiffe://prod/a"\nroles = ["client"]\n'
PERSON = '[[gateway.identity.grants]]\nmatch = "jwt:alice"\nroles = ["operator"]\n'
OPEN = 'listen = "0.0.0.0:8001"\n'


def load(folder: Path, *, gateway: str = "", sections: str = "") -> object:
    """A config with these lines in [gateway] and these sections behind it."""
    path = folder / "guard.toml"
    models = '[[models]]\nname = "m"\npack = "p"\nanswer = "ensemble"\n'
    path.write_text(f"[gateway]\n{gateway}{sections}{models}")
    return load_config(path)


@pytest.mark.parametrize(
    ("gateway", "sections"),
    [
        ("", ""),
        ('listen = "localhost:1"\n', ""),
        ('listen = "[::1]:1"\nmetrics = "127.9.9.9:2"\n', ""),
        (OPEN + "insecure = true\n", ""),
        (OPEN, TLS + GRANT),
        (OPEN, TLS.replace('client_ca = "ca.pem"\n', "") + TOKENS + PERSON),
        (OPEN + "insecure = true\n", TOKENS + PERSON),
        ("", TOKENS + PERSON),
        ("", TOKENS + 'roles_claim = "roles"\n'),
        ("", TLS + TOKENS + GRANT + PERSON),
        ("", TLS.replace('client_ca = "ca.pem"\n', "")),
    ],
)
def test_what_is_safe_or_said_on_purpose_is_accepted(
    tmp_path: Path, gateway: str, sections: str
) -> None:
    """Loopback as it was; the network with TLS and identities, or with insecure = true."""
    assert load(tmp_path, gateway=gateway, sections=sections)


@pytest.mark.parametrize(
    ("gateway", "sections", "key"),
    [
        (OPEN, "", "gateway.listen"),
        ('listen = "[::]:1"\n', "", "gateway.listen"),
        ('listen = "10.0.0.1:1"\n', "", "gateway.listen"),
        ('listen = "localhost.example:1"\n', "", "gateway.listen"),
        ('listen = "127.0.0.1.example:1"\n', "", "gateway.listen"),
        ('metrics = "0.0.0.0:1"\n', "", "gateway.metrics"),
        (OPEN, TLS.replace('client_ca = "ca.pem"\n', ""), "gateway.listen"),
        (OPEN, TOKENS + PERSON, "gateway.listen"),
        ("", TLS.replace('key = "k.pem"\n', "") + GRANT, "gateway.tls"),
        ("", '[gateway.tls]\nclient_ca = "ca.pem"\n' + GRANT, "gateway.tls.client_ca"),
        ("", TLS, "gateway.identity.grants"),
        ("", TOKENS, "gateway.identity.grants"),
        ("", GRANT, "gateway.identity.grants"),
        ("", TLS + PERSON, "gateway.identity.grants[0].match"),
        ("", TOKENS + GRANT, "gateway.identity.grants[0].match"),
        ("", TOKENS.replace('audience = "guard"\n', "") + PERSON, "gateway.identity.tokens"),
        ("", TOKENS.replace('keys = "k.json"\n', "") + PERSON, "gateway.identity.tokens"),
        ("", TOKENS + "leeway = 600\n" + PERSON, "gateway.identity.tokens.leeway"),
        ("", TOKENS + "leeway = nan\n" + PERSON, "gateway.identity.tokens.leeway"),
        (
            "",
            TOKENS + 'algorithms = ["HS256"]\n' + PERSON,
            "gateway.identity.tokens.algorithms[0]",
        ),
        ("", TOKENS + 'algorithms = ["none"]\n' + PERSON, "gateway.identity.tokens.algorithms[0]"),
        ("", TOKENS + "algorithms = []\n" + PERSON, "gateway.identity.tokens.algorithms"),
        ("", TLS + GRANT.replace("client", "root"), "gateway.identity.grants[0].roles[0]"),
        ("", TLS + GRANT.replace('"client"', ""), "gateway.identity.grants[0].roles"),
        ("", TLS + "require_clients = true\n" + GRANT, "gateway.tls.require_clients"),
    ],
)
def test_what_leaves_a_door_open_or_nobody_a_key_is_refused(
    tmp_path: Path, gateway: str, sections: str, key: str
) -> None:
    """One line that names the setting."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, gateway=gateway, sections=sections)
    assert caught.value.key == key
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "match",
    [
        "*", "spiffe:*", "spiffe://*", "spiffe://prod", "spiffe://prod/", "spiffe://pr*/a",
        "spiffe://prod/a*", "spiffe://prod/*/a", "alice", "jwt:", "jwt:al*", "dns:example.test",
        "spiffe:prod/a", "jwt:*a*",
    ],
)  # fmt: skip
def test_a_grant_that_matches_more_than_it_says_is_refused(tmp_path: Path, match: str) -> None:
    """A `*` only for the rest after a border, never for a trust domain."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, sections=TLS + TOKENS + GRANT.replace("spiffe://prod/a", match))
    assert caught.value.key == "gateway.identity.grants[0].match"


def test_paths_start_from_the_file(tmp_path: Path) -> None:
    """Certificates and keys move with the config."""
    gateway = load(tmp_path, sections=TLS + TOKENS + GRANT).gateway  # type: ignore[attr-defined]
    assert gateway.tls.client_ca == str(tmp_path / "ca.pem")
    assert gateway.tls.key == str(tmp_path / "k.pem")
    assert gateway.identity.tokens.keys == str(tmp_path / "k.json")


def test_a_single_pack_on_the_network_says_insecure(tmp_path: Path) -> None:
    """`guard serve --pack` has no settings for identities, so only loopback or --insecure."""
    with pytest.raises(ConfigError, match="insecure"):
        single_pack_config(tmp_path, listen="0.0.0.0:1")
    assert single_pack_config(tmp_path, listen="0.0.0.0:1", insecure=True)


def test_loopback_is_this_machine_and_nothing_like_it() -> None:
    """By address, not by how a name begins."""
    assert all(map(is_loopback, ("127.0.0.1:1", "127.1.2.3:0", "[::1]:1", "localhost:1")))
    assert not any(
        map(is_loopback, ("0.0.0.0:1", "[::]:1", "127.evil:1", "localhost.evil:1", ":1"))
    )
