"""Keys that a command hands out: they arrive, they stay out of sight, and no key means no start."""

import hashlib
import json
import logging
import stat
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from guard.config import load_config
from guard.config.audit import AuditSettings
from guard.config.release import KeyRelease
from guard.errors import ConfigError
from guard.explain import explain_audit, explain_release
from guard.gateway.audit.keys import load_keys, make_keys
from guard.gateway.audit.verify import verify
from guard.gateway.release import LARGEST, audit_keys, released
from guard.gateway.server import read_secret, running
from guard.testing import gateway_config

SECRET = "correct horse battery staple, 32 bytes and more"  # noqa: S105 (for tests)

# A stand-in for a trusted platform and its key broker. The "platform" signs what runs (here: a
# file's hash) together with the broker's fresh challenge; the broker hands a key out only for a
# signature of the platform's key over a measurement that it knows. None of this is a real TEE.
SIMULATOR = """
import hashlib, hmac, json, pathlib, secrets, sys
root, measured, name = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
broker = json.loads((root / "broker.json").read_text())
challenge = secrets.token_bytes(16)
digest = hashlib.sha256(pathlib.Path(measured).read_bytes()).hexdigest()
platform = bytes.fromhex((root / "platform.key").read_text())
quote = hmac.digest(platform, challenge + digest.encode(), "sha256")
expected = hmac.digest(bytes.fromhex(broker["platform"]), challenge + digest.encode(), "sha256")
if not hmac.compare_digest(quote, expected) or digest not in broker["measurements"]:
    sys.exit("the broker does not trust this machine; its key is " + broker["keys"][name])
sys.stdout.write(broker["keys"][name])
"""


def shell(script: str, **more: Any) -> KeyRelease:
    """A hook that runs this; the key's name is $0."""
    return KeyRelease(command=["/bin/sh", "-c", script], keys=["secret"], **more)


@pytest.fixture
def world(tmp_path: Path) -> dict[str, Path]:
    """A simulated platform and broker, and a file whose content is what is measured."""
    measured = tmp_path / "measured"
    measured.write_text("the release that was reviewed")
    keys = {"secret": SECRET, "audit": ""}
    make_keys(tmp_path / "made" / "audit.key")
    keys["audit"] = (tmp_path / "made" / "audit.key").read_text()
    broker = {
        "platform": "ab" * 32,
        "measurements": [hashlib.sha256(measured.read_bytes()).hexdigest()],
        "keys": keys,
    }
    (tmp_path / "broker.json").write_text(json.dumps(broker))
    (tmp_path / "platform.key").write_text("ab" * 32)
    (tmp_path / "attest.py").write_text(SIMULATOR)
    return {"root": tmp_path, "measured": measured}


def attested(world: dict[str, Path], *keys: Any) -> KeyRelease:
    """The simulator as a hook."""
    command = [sys.executable, str(world["root"] / "attest.py"), str(world["root"])]
    return KeyRelease(command=[*command, str(world["measured"])], keys=list(keys))


def test_the_key_is_what_the_command_writes() -> None:
    """Its output without white space around it, asked for by the key's name."""
    assert released(shell('printf " key of %s\\n" "$0"'), "secret") == b"key of secret"


async def test_a_gateway_serves_with_released_keys_and_keeps_no_copy(
    world: dict[str, Path], tiny_pack: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Noise secret and audit keys come from the hook; nothing of them is on the disk or logged."""
    caplog.set_level(logging.DEBUG)
    config = gateway_config(
        tiny_pack,
        gateway={
            "key_release": attested(world, "secret", "audit"),
            "audit": AuditSettings(folder=str(tmp_path / "log")),
        },
    )
    assert read_secret(config.gateway) == SECRET.encode()
    async with running(config):
        pass
    keys = load_keys(tmp_path / "made" / "audit.key")
    assert verify(tmp_path / "log", keys).ok
    secrets = [SECRET, keys.current.mac.hex()]
    written = [path.read_bytes() for path in (tmp_path / "log").rglob("*") if path.is_file()]
    assert not [one for one in secrets if any(one.encode() in data for data in written)]
    assert not [one for one in secrets if one in caplog.text]


async def test_a_changed_machine_gets_no_key_and_does_not_start(
    world: dict[str, Path], tiny_pack: Path
) -> None:
    """What is measured is not what the broker knows: one line, without the key, and no gateway."""
    world["measured"].write_text("something else")
    config = gateway_config(tiny_pack, gateway={"key_release": attested(world, "secret")})
    with pytest.raises(ConfigError) as failure:
        async with running(config):
            pass
    assert "ended with status 1, so there is no key 'secret'" in str(failure.value)
    assert SECRET not in _whole(failure.value)


def _whole(error: BaseException) -> str:
    """Everything that a traceback could show of an error: its text, and its causes'."""
    texts = []
    one: BaseException | None = error
    while one is not None:
        texts.append(f"{one!r} {getattr(one, 'output', '')} {getattr(one, 'stderr', '')}")
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return " ".join(texts)


@pytest.mark.parametrize(
    ("release", "complaint"),
    [
        (KeyRelease(command=["/nowhere/hook"], keys=["secret"]), "No such file or directory"),
        (KeyRelease(command=["/bin/sh\0"], keys=["secret"]), "cannot be started"),
        (shell("echo LEAK; echo LEAK >&2; exit 3"), "ended with status 3"),
        (shell("echo LEAK; kill -9 $$"), "ended with status -9"),
        (shell("echo; exit 0"), "wrote nothing"),
        (shell(f"head -c {LARGEST + 1} /dev/zero | tr '\\0' L"), f"wrote more than {LARGEST}"),
        (shell("echo LEAK; sleep 60", timeout=0.3), "took longer than 0.3 s"),
        (shell("echo LEAK; sleep 60 & exit 0", timeout=0.3), "took longer than 0.3 s"),
    ],
    ids=["missing", "no-path", "status", "signal", "empty", "too-much", "slow", "left-behind"],
)
def test_no_key_is_one_plain_line(
    release: KeyRelease, complaint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every way to fail names the program and the cause, in time, and repeats nothing of it."""
    start = time.monotonic()
    with pytest.raises(ConfigError, match=r"gateway\.key_release\.command: /") as failure:
        released(release, "secret")
    assert time.monotonic() - start < 10
    assert complaint in str(failure.value)
    shown = capfd.readouterr()
    assert "LEAK" not in _whole(failure.value) + shown.out + shown.err
    assert len(str(failure.value)) < 200


def test_what_the_command_started_ends_with_it(tmp_path: Path) -> None:
    """A hook that is too slow leaves no process behind."""
    file = tmp_path / "ticks"
    script = f"while true; do echo >> {file}; sleep 0.02; done & wait"
    with pytest.raises(ConfigError, match="took longer"):
        released(shell(script, timeout=0.5), "secret")
    size = file.stat().st_size
    time.sleep(0.2)
    assert size > 0
    assert file.stat().st_size == size


def test_the_largest_key_is_taken() -> None:
    """The bound is what it says."""
    assert len(released(shell(f"head -c {LARGEST} /dev/zero | tr '\\0' L"), "secret")) == LARGEST


def test_a_short_secret_is_refused(tiny_pack: Path) -> None:
    """A released secret has to be as long as one in a file, and the refusal does not show it."""
    config = gateway_config(tiny_pack, gateway={"key_release": shell("echo short-key")})
    with pytest.raises(ConfigError, match="9 bytes are too few") as failure:
        read_secret(config.gateway)
    assert "short-key" not in _whole(failure.value)


@pytest.mark.parametrize("text", ["LEAK", '{"format":"LEAK"}', "{}", "[]", '{"keys":"LEAK'])
def test_malformed_audit_keys_are_not_quoted(text: str) -> None:
    """Audit keys that cannot be read are refused without a word of them."""
    release = KeyRelease(command=["/bin/sh", "-c", f"printf '%s' '{text}'"], keys=["audit"])
    with pytest.raises(ConfigError, match="'audit' is malformed") as failure:
        audit_keys(release)
    assert "LEAK" not in _whole(failure.value)


def test_without_the_hook_nothing_is_run() -> None:
    """No settings: audit keys are a matter of files."""
    assert audit_keys(KeyRelease()) is None
    assert audit_keys(shell("exit 1")) is None  # it hands out the secret only


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ('command = ["/bin/hook"]', "gateway.key_release: command and keys go together"),
        ('keys = ["secret"]', "gateway.key_release: command and keys go together"),
        ('command = ["hook"]\nkeys = ["secret"]', "command: must name a program by its whole"),
        ('command = ["/bin/hook"]\nkeys = ["other"]', "gateway.key_release.keys"),
        ('command = ["/bin/hook"]\nkeys = ["audit"]', "gateway.audit.folder: must be set"),
        ('command = ["/bin/hook"]\nkeys = ["secret"]\ntimeout = 0', "gateway.key_release.timeout"),
        (
            'command = ["/bin/hook"]\nkeys = ["secret"]\n[gateway]\nsecret_file = "s"',
            "gateway.secret_file: must not be set",
        ),
        (
            'command = ["/bin/hook"]\nkeys = ["audit"]\n'
            '[gateway.audit]\nfolder = "log"\nkey_file = "k"',
            "gateway.audit.key_file: must not be set",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_named(
    tmp_path: Path, settings: str, complaint: str
) -> None:
    """Half a hook, an unknown key, or a key from two places is refused before anything runs."""
    file = tmp_path / "guard.toml"
    models = '[[models]]\nname = "a"\npack = "p"\nanswer = "ensemble"\n'
    file.write_text(f"{models}[gateway.key_release]\n{settings}\n")
    with pytest.raises(ConfigError, match=r"gateway\.") as failure:
        load_config(file)
    assert complaint in str(failure.value)


def test_the_audit_keys_file_is_not_needed(tmp_path: Path) -> None:
    """With released audit keys the settings are whole without a key file, and `at` changes none."""
    file = tmp_path / "guard.toml"
    file.write_text(
        '[gateway.key_release]\ncommand = ["/bin/hook"]\nkeys = ["audit"]\n'
        '[gateway.audit]\nfolder = "log"\n[[models]]\nname = "a"\npack = "p"\nanswer = "ensemble"\n'
    )
    gateway = load_config(file).gateway
    assert gateway.audit.key_file == ""
    assert gateway.key_release.command == ["/bin/hook"]


def test_key_files_are_never_made_by_a_release(world: dict[str, Path]) -> None:
    """The released audit keys are the made ones; no second file appears."""
    before = sorted(path.name for path in world["root"].rglob("*"))
    ring = audit_keys(attested(world, "audit"))
    assert ring == load_keys(world["root"] / "made" / "audit.key")
    assert sorted(path.name for path in world["root"].rglob("*")) == before
    assert stat.S_IMODE((world["root"] / "made" / "audit.key").stat().st_mode) == 0o600


def test_check_says_where_keys_come_from(tmp_path: Path) -> None:
    """`guard check` names the program and the keys, and asks nobody for a key file."""
    release = KeyRelease(command=["/bin/hook", "--quiet"], keys=["secret", "audit"], timeout=5)
    assert list(explain_release(release)) == ["keys: secret and audit from /bin/hook, within 5 s"]
    assert not list(explain_release(KeyRelease()))
    first = next(explain_audit(AuditSettings(folder=str(tmp_path))))
    assert first == f"audit: kept in {tmp_path}, keys handed out by gateway.key_release"
