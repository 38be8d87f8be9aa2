"""Every call and page, as every role, with every kind of good and bad credentials."""

import asyncio
import http.client
import re
import ssl
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from msgspec import structs

from guard.config import Config
from guard.config.suspects import Suspects
from guard.gateway import codec, permissions, protocol
from guard.gateway.identity import ROLES
from guard.gateway.server import Running, running
from guard.testing import clean_images, gateway_config
from tests.gateway import credentials
from tests.gateway.credentials import Pair, World, make_world
from tests.gateway.setting import counted
from tests.gateway.wire import infer_request

INFER = f"/{protocol.INFERENCE_SERVICE}/ModelInfer"
UNKNOWN = (f"/{protocol.INFERENCE_SERVICE}/Nothing", "/other.Service/Call", INFER.lower())
CALLS = [path for path in permissions.TABLE if path != permissions.METRICS_PAGE]
ASKED = (*CALLS, *UNKNOWN)
NOBODYS = "a" * 32  # the form of a suspect's id
ABOUT_ONE = {  # calls whose permitted end here with NOT_FOUND, since they name NOBODYS
    protocol.GUARD_METHODS[name].path for name in ("GetSuspect", "LabelSuspects", "SubmitFeedback")
}
REFUSED = {  # and with FAILED_PRECONDITION, since there is no other pack
    protocol.GUARD_METHODS[name].path for name in ("PromotePack", "RollbackPack")
}
GARBAGE = b"\xff\xff\xff\xff not a message"
AT_ONCE = 48
GRANTED = ("OK", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED")
SURPRISES = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
# grpc.aio's client fails by itself when a stream was refused while it was still writing.
WRITING = 'Failed "execute_batch": (<grpc._cython.cygrpc.SendMessageOperation'
STREAMS = {
    f"/{protocol.INFERENCE_SERVICE}/ModelStreamInfer",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
}
OFFERED = {  # what this gateway answers to those who may ask; all else exists elsewhere
    *(method.path for method in protocol.INFERENCE_METHODS.values()),
    *(method.path for method in protocol.GUARD_METHODS.values()),
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The files that all gateways here start from."""
    return make_world(tmp_path_factory.mktemp("world"))


class Place:
    """Two gateways, one that wants certificates and one that wants tokens."""

    def __init__(self, world: World, certified: Running, tokened: Running) -> None:
        self.world, self.certified, self.tokened = world, certified, tokened
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def code(self, channel: Any, path: str, shown: str | None, body: bytes) -> str:
        """The status of one call; of a stream, OK as soon as there is an answer."""
        metadata = () if shown is None else (("authorization", shown),)
        async with self._slots:
            for _ in range(5):
                try:
                    return await _status(channel, path, metadata, body)
                except grpc.aio.AioRpcError as error:
                    told = error.debug_error_string() or ""
                    if WRITING not in told:
                        name = str(error.code().name)
                        return f"{name} {told}" if error.code() in SURPRISES else name
        raise AssertionError("the client never got to the answer")


async def _status(channel: Any, path: str, metadata: Any, body: bytes) -> str:
    if path not in STREAMS:
        await channel.unary_unary(path)(body, metadata=metadata, timeout=20)
        return "OK"
    call = channel.stream_stream(path)(iter([body]), metadata=metadata, timeout=20)
    if await call.read() is grpc.aio.EOF:
        return str((await call.code()).name)
    call.cancel()
    return "OK"


@pytest.fixture
async def place(world: World, tiny_pack: Path, tmp_path: Path) -> AsyncIterator[Place]:
    """Both gateways, with all that may be on, the ensemble answering."""
    packs = {"packs": str(tmp_path / "packs"), "state": str(tmp_path / "state")}
    common = {"reflection": True, "metrics": "127.0.0.1:0", **packs}
    certified = common | {"tls": world.tls(clients=True), "identity": world.identities()}
    alone = world.identities(certificates=False)
    tokened = common | {"tls": world.tls(clients=False), "identity": alone}
    async with AsyncExitStack() as stack:
        gateways = [
            await stack.enter_async_context(
                running(kept(tmp_path / name, gateway_config(tiny_pack, gateway=settings)))
            )
            for name, settings in (("certified", certified), ("tokened", tokened))
        ]
        yield Place(world, *gateways)


def kept(folder: Path, config: Config) -> Config:
    """The same settings, with suspects."""
    suspects = Suspects(folder=str(folder / "suspects"), key_file=str(folder / "keys"))
    return structs.replace(config, suspects=suspects)


def channel(world: World, gateway: Running, pair: Pair | None) -> Any:
    """A fresh connection over TLS, with or without a certificate."""
    shown = (pair.key, pair.cert) if pair else (None, None)
    trust = grpc.ssl_channel_credentials(world.authority.cert, *shown)
    options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.secure_channel(f"localhost:{gateway.port}", trust, options)


def body(path: str) -> bytes:
    """A good request of this call."""
    images = clean_images([1])
    if path.endswith("ModelInfer"):
        return bytes(infer_request(images).SerializeToString())
    if path.endswith("Inspect"):
        tensor = codec.pack_tensor(images)
        request = protocol.InspectRequest(model_name="tiny", images=tensor)
        return bytes(request.SerializeToString())
    if path.endswith("LabelSuspects"):
        return bytes(protocol.LabelSuspectsRequest(ids=[NOBODYS], label=1).SerializeToString())
    if path.endswith("SubmitFeedback"):
        return bytes(protocol.SubmitFeedbackRequest(id=NOBODYS, label=1).SerializeToString())
    if path.endswith("GetSuspect"):
        return bytes(protocol.GetSuspectRequest(id=NOBODYS).SerializeToString())
    if path.endswith("EraseSuspects"):
        return bytes(protocol.EraseSuspectsRequest(filter={"ids": [NOBODYS]}).SerializeToString())
    if path.startswith("/inference") and "/Model" in path:
        return bytes(protocol.ModelReadyRequest(name="tiny").SerializeToString())
    if path.endswith("Info"):
        return reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    return b""


def expected(path: str, role: str, verdict: str) -> str:
    """The only code that this call may end with."""
    if verdict == "TLS":
        return "UNAVAILABLE"
    if verdict != "GOOD":
        return verdict
    if role not in permissions.TABLE.get(path, ()):
        return "PERMISSION_DENIED"
    if path in ABOUT_ONE:
        return "NOT_FOUND"
    if path in REFUSED:
        return "FAILED_PRECONDITION"
    return "OK" if path in OFFERED else "UNIMPLEMENTED"


async def wrong_codes(place: Place, gateway: Running, asked: list[tuple[Any, ...]]) -> list[str]:
    """Asks everything; what ended otherwise than expected. Who must fail sends garbage."""

    async def one(
        line: Any, path: str, role: str, name: str, shown: str | None, want: str
    ) -> str | None:
        sent = body(path) if want in GRANTED else GARBAGE
        code = await place.code(line, path, shown, sent)
        return None if code == want else f"{path} as {role} with {name}: {code}, not {want}"

    answers = await asyncio.gather(*(one(*question) for question in asked))
    assert gateway.servicer.in_flight == 0
    return [answer for answer in answers if answer]


async def test_every_call_as_every_role_with_every_certificate(place: Place) -> None:
    """Each of the calls, roles and certificates gives exactly the code it should."""
    asked, lines = [], []
    for role in ROLES:
        for name, (pair, verdict) in credentials.certificates(place.world, role).items():
            lines.append(line := channel(place.world, place.certified, pair))
            asked += [
                (line, path, role, name, None, expected(path, role, verdict)) for path in ASKED
            ]
    try:
        assert len(asked) >= 7 * 15 * 25
        assert await wrong_codes(place, place.certified, asked) == []
    finally:
        await asyncio.gather(*(line.close() for line in lines))


async def test_every_call_as_every_role_with_every_token(place: Place) -> None:
    """The same for tokens, which are refused before the body arrives."""
    asked = []
    async with channel(place.world, place.tokened, None) as line:
        for role in ROLES:
            for name, (shown, verdict) in credentials.tokens(place.world, role).items():
                asked += [
                    (line, path, role, name, shown, expected(path, role, verdict)) for path in ASKED
                ]
        assert len(asked) >= 7 * 24 * 25
        assert await wrong_codes(place, place.tokened, asked) == []


async def test_a_token_counts_before_a_certificate(place: Place) -> None:
    """A good certificate does not make up for a bad token; a good token decides the role."""
    mine, theirs = ({name: make(place.world, role) for name, make, role in (
        ("certificate", credentials.certificates, role), ("token", credentials.tokens, role)
    )} for role in ("client", "operator"))  # fmt: skip
    pair = mine["certificate"]["good"][0]
    assert pair is None or isinstance(pair, Pair)
    status = protocol.GUARD_METHODS["Status"].path
    async with channel(place.world, place.certified, pair) as line:
        assert await place.code(line, INFER, None, body(INFER)) == "OK"
        assert await place.code(line, status, None, GARBAGE) == "PERMISSION_DENIED"
        bad = str(mine["token"]["expired"][0])
        assert await place.code(line, INFER, bad, GARBAGE) == "UNAUTHENTICATED"
        operator = str(theirs["token"]["good"][0])
        assert await place.code(line, status, operator, body(status)) == "OK"
        assert await place.code(line, INFER, operator, GARBAGE) == "PERMISSION_DENIED"


async def test_plain_text_does_not_reach_a_tls_port(place: Place) -> None:
    """Nothing is answered without TLS, whatever else is shown."""
    good = credentials.tokens(place.world, "client")["good"][0]
    for gateway in (place.certified, place.tokened):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as line:
            codes = await asyncio.gather(*(place.code(line, path, good, GARBAGE) for path in ASKED))
        assert set(codes) == {"UNAVAILABLE"}


async def test_the_page_as_every_role_with_every_credential(place: Place) -> None:
    """`/metrics` is behind the same door: 200, 401, 403, or no connection at all."""
    questions = []
    for role in ROLES:
        may = 200 if role in permissions.TABLE[permissions.METRICS_PAGE] else 403
        codes = {"TLS": 0, "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403, "GOOD": may}
        port = place.certified.metrics_port
        for name, (pair, verdict) in credentials.certificates(place.world, role).items():
            questions.append((port, pair, None, codes[verdict], f"{role}, {name}"))
        port = place.tokened.metrics_port
        for name, (shown, verdict) in credentials.tokens(place.world, role).items():
            questions.append((port, None, shown, codes[verdict], f"{role}, {name}"))

    def ask(port: int, pair: Pair | None, shown: str | None, want: int, what: str) -> str | None:
        got = page(place.world, port, pair, shown)
        return None if got == want else f"{what}: {got}, not {want}"

    with ThreadPoolExecutor(8) as threads:
        wrong = [one for one in threads.map(ask, *zip(*questions, strict=True)) if one]
    assert wrong == []
    good = credentials.certificates(place.world, "auditor")["good"][0]
    port = place.certified.metrics_port
    assert await asyncio.to_thread(page, place.world, port, good, None, "/other") == 403


def page(
    world: World, port: int, pair: Pair | None, shown: str | None, path: str = "/metrics"
) -> int:
    """The status of one GET over TLS, 0 where there was no answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=world.authority.cert.decode())
    if pair is not None:
        with NamedTemporaryFile(dir=world.folder) as shown_file:
            shown_file.write(pair.key + pair.cert)
            shown_file.flush()
            context.load_cert_chain(shown_file.name)
    line = http.client.HTTPSConnection("localhost", port, timeout=10, context=context)
    try:
        line.request("GET", path, headers={} if shown is None else {"Authorization": shown})
        return line.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        line.close()


def test_every_call_there_is_has_a_permission() -> None:
    """A call in any service's descriptor, or among the forwarded ones, has a row in the table."""
    files = [
        *(protocol.POOL.FindFileContainingSymbol(name) for name in SERVICES),
        health_pb2.DESCRIPTOR,
        reflection_pb2.DESCRIPTOR,
    ]
    services = [service for file in files for service in file.services_by_name.values()]
    calls = {f"/{one.full_name}/{method.name}" for one in services for method in one.methods}
    wider = (
        *protocol.FORWARDED_METHODS, *protocol.STREAM_METHODS, *protocol.REFUSED_METHODS
    )  # fmt: skip
    calls |= {f"/{protocol.INFERENCE_SERVICE}/{name}" for name in wider}
    assert len(calls) > 20
    later = {"/grpc.health.v1.Health/List"}  # in newer versions of the health service
    assert calls - set(permissions.TABLE) == set(), "a call without a permission"
    assert set(permissions.TABLE) - calls == {permissions.METRICS_PAGE} | (later - calls)


def services_here() -> tuple[str, ...]:
    """Every service in the gateway's own descriptors."""
    from importlib import resources

    from google.protobuf import descriptor_pb2

    data = resources.files("guard.gateway").joinpath("descriptors.binpb").read_bytes()
    files = descriptor_pb2.FileDescriptorSet.FromString(data).file
    return tuple(f"{file.package}.{one.name}" for file in files for one in file.service)


SERVICES = services_here()


def test_every_role_may_do_something_and_nobody_everything() -> None:
    """Roles separate: no single one has the whole table, none is useless to its owner."""
    for role in ROLES:
        calls = permissions.calls_of([role])
        assert 0 < len(calls) < len(permissions.TABLE), role
    assert permissions.TABLE[INFER] == {"client"}


async def test_refusals_are_counted_by_their_reason(place: Place) -> None:
    """Each kind of bad credential has a label, and the labels are the ones in the list."""
    reasons = {
        "no token": "missing",
        "none alg": "algorithm",
        "public key as HMAC secret": "algorithm",
        "wrong key": "signature",
        "unknown kid": "unknown_key",
        "expired": "expired",
        "not yet valid": "not_yet_valid",
        "wrong audience": "audience",
        "wrong issuer": "issuer",
        "no subject": "claims",
        "truncated": "malformed",
        "garbage": "malformed",
        "huge": "malformed",
        "no roles": "role",
    }
    shown = credentials.tokens(place.world, "client")
    async with channel(place.world, place.tokened, None) as line:
        for name, reason in reasons.items():
            before = counted("guard_auth_failures_total", reason=reason)
            await place.code(line, INFER, shown[name][0], GARBAGE)
            assert counted("guard_auth_failures_total", reason=reason) == before + 1, name
        before = counted("guard_auth_failures_total", reason="unknown_call")
        await place.code(line, UNKNOWN[1], shown["good"][0], GARBAGE)
        assert counted("guard_auth_failures_total", reason="unknown_call") == before + 1


def test_the_document_grants_what_the_table_grants() -> None:
    """deploy/docs/security.md: what stands beside a role is all that the role may, beyond any's."""
    text = (Path(__file__).parents[2] / "deploy" / "docs" / "security.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE))
    common = set.intersection(*(set(permissions.calls_of([role])) for role in ROLES))
    refused = set(protocol.REFUSED_METHODS)
    for role in ROLES:
        own = set(permissions.calls_of([role])) - common - refused
        for said, call in (
            ("the pass-through's stream", "ModelStreamInfer"),
            ("reflection", "ServerReflectionInfo"),
            ("`/metrics`", "metrics"),
        ):
            rows[role] = rows[role].replace(said, f"`{call}`")
        assert set(re.findall(r"`(\w+)`", rows[role])) == own, role
