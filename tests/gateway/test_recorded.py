"""What a running gateway writes into its audit log."""

import asyncio
import http.client
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from guard.config import load_config
from guard.config.audit import AuditSettings
from guard.config.limits import Limits
from guard.errors import AuditError, ConfigError, PackError
from guard.gateway import protocol
from guard.gateway.audit import log as log_module
from guard.gateway.audit.keys import load_keys
from guard.gateway.audit.show import records
from guard.gateway.audit.verify import verify
from guard.gateway.server import running
from guard.testing import clean_images, gateway_config
from tests.gateway.credentials import make_world
from tests.gateway.wire import failure_of, infer_request

INSPECT = protocol.GUARD_METHODS["Inspect"].path
STATUS = protocol.GUARD_METHODS["Status"].path
INFER = protocol.INFERENCE_METHODS["ModelInfer"].path


def kept(tmp_path: Path, **more: Any) -> AuditSettings:
    """Settings for a log in this folder."""
    paths = {"folder": "log", "key_file": "keys", "export": "export"}
    return AuditSettings(**{name: str(tmp_path / at) for name, at in paths.items()}, **more)


def shown(tmp_path: Path, *events: str) -> list[dict[str, Any]]:
    """What the log holds."""
    return list(records(tmp_path / "log", events=events))


async def asked(address: str, path: str, body: bytes = b"", token: str = "") -> str:
    """The status of one call."""
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            await channel.unary_unary(path)(body, metadata=metadata, timeout=10)
        except grpc.aio.AioRpcError as error:
            return failure_of(error)[0]
    return "OK"


async def test_starts_stops_settings_and_packs(tiny_pack: Path, tmp_path: Path) -> None:
    """Every run is there, with its packs; the digest of the settings changes with them."""
    for budget in (0.01, 0.01, 0.02):
        config = gateway_config(
            tiny_pack, gateway={"audit": kept(tmp_path)}, max_false_positive_rate=budget
        )
        async with running(config) as gateway:
            assert await asked(gateway.address, INFER, _request()) == "OK"
    started = shown(tmp_path, "gateway.start")
    assert len(started) == len(shown(tmp_path, "gateway.stop")) == 3
    one, two, three = (line["details"]["config"] for line in started)
    assert one == two != three
    (pack, *_) = shown(tmp_path, "gateway.pack")
    assert pack["details"]["digest"].startswith("sha256:")
    assert not shown(tmp_path, "admin", "refused")
    keys = load_keys(tmp_path / "keys")
    report = verify(tmp_path / "log", keys, exported=tmp_path / "export")
    assert report.ok
    assert report.signed == report.last


def _request() -> bytes:
    data: bytes = infer_request(clean_images([0])).SerializeToString()
    return data


async def test_calls_of_operators_and_refusals(tiny_pack: Path, tmp_path: Path) -> None:
    """Who asked what, as a keyed hash; who was refused, and for what."""
    world = make_world(tmp_path)
    settings = {
        "audit": kept(tmp_path),
        "identity": world.identities(certificates=False),
        "insecure": True,
    }
    token = world.issuer.token
    async with running(gateway_config(tiny_pack, gateway=settings)) as gateway:
        at = gateway.address
        assert await asked(at, STATUS, token=token("operator")) == "OK"
        assert await asked(at, INSPECT, b"\xff", token=token("analyst")) == "INVALID_ARGUMENT"
        for _ in range(3):
            assert await asked(at, INSPECT, token=token("operator")) == "PERMISSION_DENIED"
        assert await asked(at, STATUS) == "UNAUTHENTICATED"
        assert await asked(at, "/x.Y/Z", token=token("operator")) == "PERMISSION_DENIED"
        load = f"/{protocol.INFERENCE_SERVICE}/RepositoryModelLoad"
        assert await asked(at, load, token=token("operator")) == "UNIMPLEMENTED"
    keys = load_keys(tmp_path / "keys")
    operator, analyst = keys.actor("jwt:operator"), keys.actor("jwt:analyst")

    def lines(*events: str) -> list[tuple[str, str, str, int]]:
        return [
            (one["actor"], one["outcome"], one["details"]["rpc"], one["details"].get("count", 1))
            for one in shown(tmp_path, *events)
        ]

    assert lines("admin") == [
        (operator, "ok", "Status", 1),
        (analyst, "INVALID_ARGUMENT", "Inspect", 1),
    ]
    assert lines("refused.permission") == [
        (operator, "refused", "Inspect", 1),
        (operator, "refused", "unknown", 1),
        (operator, "refused", "RepositoryModelLoad", 1),
        (operator, "refused", "Inspect", 2),
    ]
    assert lines("refused.identity") == [("", "refused", "Status", 1)]
    text = b"".join(path.read_bytes() for path in (tmp_path / "log").iterdir())
    assert b"operator" not in text
    assert b"jwt:" not in text


async def test_who_asks_too_much_is_recorded(tiny_pack: Path, tmp_path: Path) -> None:
    """A refusal by a caller's own limit, with which limit it was."""
    settings = {"audit": kept(tmp_path), "limits": Limits(images_per_day=1)}
    async with running(gateway_config(tiny_pack, gateway=settings)) as gateway:
        assert await asked(gateway.address, INFER, _request()) == "OK"
        assert await asked(gateway.address, INFER, _request()) == "RESOURCE_EXHAUSTED"
    (record,) = shown(tmp_path, "refused.limit")
    assert record["details"]["why"] == "budget_spent"


async def test_what_is_too_much_is_recorded(tiny_pack: Path, tmp_path: Path) -> None:
    """A refusal for overload is a refusal by limits."""
    settings = {"audit": kept(tmp_path), "max_in_flight": 1}
    async with running(gateway_config(tiny_pack, gateway=settings)) as gateway:
        assert gateway.servicer.places.take("somebody else")
        assert await asked(gateway.address, INFER, _request()) == "RESOURCE_EXHAUSTED"
    assert [one["details"]["rpc"] for one in shown(tmp_path, "refused.limit")] == ["ModelInfer"]


@pytest.mark.parametrize(("mode", "expected"), [("block", "UNAVAILABLE"), ("allow", "OK")])
async def test_what_cannot_be_recorded(
    tiny_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, expected: str
) -> None:
    """With a full disk an operator is refused or answered, as configured; clients are answered."""
    settings = {"audit": kept(tmp_path, on_error=mode)}
    async with running(gateway_config(tiny_pack, gateway=settings)) as gateway:

        def full(_descriptor: int, _data: bytes) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(log_module, "write_all", full)
            assert await asked(gateway.address, STATUS) == expected
            assert await asked(gateway.address, INFER, _request()) == "OK"
        assert await asked(gateway.address, STATUS) == "OK"
    assert len(shown(tmp_path, "log.lost")) == 1


async def test_a_gateway_does_not_start_on_a_log_it_cannot_trust(
    tiny_pack: Path, tmp_path: Path
) -> None:
    """A log that was cut, keys that are gone, a folder that is no folder: one clear error."""
    config = gateway_config(tiny_pack, gateway={"audit": kept(tmp_path)})
    async with running(config):
        pass
    (segment,) = (tmp_path / "log").glob("segment-*")
    whole = segment.read_bytes()
    segment.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    with pytest.raises(AuditError, match="altered or cut"):
        async with running(config):
            pass
    segment.write_bytes(whole)
    (tmp_path / "keys").rename(tmp_path / "hidden")
    with pytest.raises(ConfigError, match="key_file"):
        async with running(config):
            pass
    (tmp_path / "hidden").rename(tmp_path / "keys")
    async with running(config):
        pass
    (tmp_path / "file").touch()
    broken = kept(tmp_path / "file")
    with pytest.raises(ConfigError, match=r"gateway\.audit"):
        async with running(gateway_config(tiny_pack, gateway={"audit": broken})):
            pass


async def test_a_gateway_that_fails_to_start_lets_go_of_its_log(
    tiny_pack: Path, tmp_path: Path
) -> None:
    """A pack that is missing leaves the folder free for the next try."""
    missing = gateway_config(tiny_pack, gateway={"audit": kept(tmp_path)}, pack=str(tmp_path))
    for _ in range(2):
        with pytest.raises(PackError):
            async with running(missing):
                pass
    assert not shown(tmp_path, "gateway")


async def test_a_refused_page_is_recorded(tiny_pack: Path, tmp_path: Path) -> None:
    """The metrics page refuses strangers and the unpermitted, and the log has both."""
    world = make_world(tmp_path)
    settings = {
        "audit": kept(tmp_path),
        "identity": world.identities(certificates=False),
        "insecure": True,
        "metrics": "127.0.0.1:0",
    }
    async with running(gateway_config(tiny_pack, gateway=settings)) as gateway:
        for token, code in (("", 401), (world.issuer.token("client"), 403)):
            assert await asyncio.to_thread(_page, gateway.metrics_port, token) == code
    one, two = shown(tmp_path, "refused")
    assert (one["event"], one["actor"]) == ("refused.identity", "")
    keys = load_keys(tmp_path / "keys")
    assert (two["event"], two["actor"]) == ("refused.permission", keys.actor("jwt:client"))
    assert one["details"] == two["details"] == {"page": "/metrics"}


def _page(port: int, token: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(
        "GET", "/metrics", headers={"Authorization": f"Bearer {token}"} if token else {}
    )
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"export": "export"}, "gateway.audit.folder"),
        ({"folder": "log"}, "gateway.audit.key_file"),
        ({"folder": "log", "key_file": "log/keys"}, "gateway.audit.key_file"),
        ({"folder": "log", "key_file": "keys", "export": "log"}, "gateway.audit.export"),
    ],
)
def test_settings_that_would_not_protect_are_refused(
    tmp_path: Path, settings: dict[str, str], key: str
) -> None:
    """Keys or checkpoints beside the log could be changed with it."""
    lines = [f"{name} = {value!r}" for name, value in settings.items()]
    head = '[[models]]\nname = "a"\npack = "p"\nanswer = "ensemble"\n[gateway.audit]\n'
    (tmp_path / "guard.toml").write_text(head + "\n".join(lines))
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "guard.toml")
    assert caught.value.key == key
