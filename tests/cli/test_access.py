"""`guard check` and `guard serve` about who may do what."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from guard.cli import main
from guard.testing import make_pack
from tests.gateway.credentials import make_world

SECURE = """
[gateway]
listen = "0.0.0.0:8001"
metrics = "0.0.0.0:9100"
[gateway.tls]
cert = "cert.pem"
key = "key.pem"
client_ca = "ca.pem"
[gateway.identity.tokens]
keys = "keys.json"
issuer = "https://issuer.test"
audience = "guard"
roles_claim = "roles"
[[gateway.identity.grants]]
match = "spiffe://prod/cameras/*"
roles = ["client"]
[[gateway.identity.grants]]
match = "jwt:alice"
roles = ["operator", "auditor"]
[[models]]
name = "tiny"
pack = "tiny"
answer = "ensemble"
"""


def run(*arguments: object) -> tuple[int, str]:
    """Exit status and everything printed."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return result.exit_code, result.output


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A whole secure config with its files."""
    make_world(tmp_path)
    make_pack(tmp_path / "tiny")
    (tmp_path / "guard.toml").write_text(SECURE)
    return tmp_path / "guard.toml"


def test_check_says_who_may_do_what(config: Path) -> None:
    """Ports, how they are protected, every grant with its calls, and nothing for others."""
    status, text = run("check", config)
    assert status == 0, text
    for piece in (
        "listens: gRPC on 0.0.0.0:8001 (TLS, certificate valid until",
        "listens: metrics on 0.0.0.0:9100",
        "client certificates required",
        "spiffe://prod/cameras/*: client (",
        "ModelInfer",
        "jwt:alice: operator, auditor (",
        "Status",
        "tokens of https://issuer.test: also the roles that their `roles` names",
        "everybody else: nothing",
    ):
        assert piece in text, piece
    operator = next(line for line in text.splitlines() if "jwt:alice" in line)
    assert "ModelInfer" not in operator


def test_check_says_when_everybody_may_do_everything(config: Path) -> None:
    """On loopback by default, beyond it only where the settings say so themselves."""
    _, _, models = SECURE.partition("[[models]]")
    config.write_text(f"[[models]]{models}")
    assert "everybody on this machine may do everything" in run("check", config)[1]
    config.write_text(f'[gateway]\nlisten = "0.0.0.0:8001"\ninsecure = true\n[[models]]{models}')
    assert "everybody who reaches these ports (gateway.insecure)" in run("check", config)[1]


@pytest.mark.parametrize("command", ["check", "serve"])
def test_an_open_port_is_refused_in_one_line(config: Path, command: str) -> None:
    """Exit 2 before anything listens; the line names the setting and both ways out."""
    models = SECURE[SECURE.index("[[models]]") :]
    config.write_text(f'[gateway]\nlisten = "0.0.0.0:8001"\n{models}')
    status, text = run(command, config)
    assert status == 2
    assert len(text.splitlines()) == 1
    for piece in ("gateway.listen", "client_ca", "tokens", "insecure = true"):
        assert piece in text


def test_serving_a_pack_on_the_network_needs_a_word(config: Path) -> None:
    """--insecure is that word, and goes with --pack only."""
    pack = config.parent / "tiny"
    status, text = run("serve", "--pack", pack, "--listen", "0.0.0.0:0")
    assert status == 2
    assert "insecure" in text
    assert run("serve", config, "--insecure")[0] == 2


@pytest.mark.parametrize(("name", "key"), [("key", "gateway.tls"), ("keys", "tokens.keys")])
def test_check_finds_unusable_files(config: Path, name: str, key: str) -> None:
    """A check that passes means that the gateway can start."""
    file = next(path for path in config.parent.iterdir() if path.stem == name)
    file.write_text("garbage")
    status, text = run("check", config)
    assert status == 2
    assert key in text
    assert len(text.splitlines()) == 1


def test_check_says_when_the_certificate_has_ended(config: Path, tmp_path: Path) -> None:
    """The gateway would start, and every client would refuse it."""
    (tmp_path / "other").mkdir()
    world = make_world(tmp_path / "other")
    world.write(world.authority.issue("gateway", hours=(-2, -1)), world.authority.cert)
    for name in ("cert.pem", "key.pem"):
        (tmp_path / "other" / name).replace(tmp_path / name)
    assert "EXPIRED" in run("check", config)[1]
