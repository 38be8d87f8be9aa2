"""What faults play on: gateways as processes, their clients, a Prometheus that watches."""

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from guard.gateway.identity import ROLES
from guard.gateway.server import LIVE
from guard.testing import FakeUpstream, make_pack
from tests.end_to_end.peers.servers import free_ports
from tests.end_to_end.processes import write_config
from tests.faults.gateway import Gateway
from tests.faults.prometheus import Prometheus, Target
from tests.faults.traffic import Caller, Traffic
from tests.gateway.credentials import AUDIENCE, DOMAIN, ISSUER, Pair, World, make_world

REPLICAS = "ab"


@dataclass(frozen=True)
class Slot:
    """One fault's place in a run: its folder, its metrics ports, its certificates."""

    name: str
    folder: Path
    ports: Mapping[str, int]
    world: World | None

    @property
    def instances(self) -> tuple[str, ...]:
        """What Prometheus calls its gateways."""
        return tuple(self.name + replica for replica in self.ports)


class House:
    """The places of a run's faults, and the Prometheus over all of them."""

    def __init__(self, folder: Path, names: Sequence[str], *, secure: Sequence[bool]) -> None:
        self.pack = make_pack(folder / "tiny")
        ports = quiet_ports(len(names) * len(REPLICAS))
        targets: dict[str, Target] = {}
        self.slots: dict[str, Slot] = {}
        for index, (name, wants) in enumerate(zip(names, secure, strict=True)):
            place = folder / f"f{index}"
            place.mkdir()
            world = make_world(place) if wants else None
            mine = {replica: ports.pop() for replica in REPLICAS}
            slot = self.slots[name] = Slot(place.name, place, mine, world)
            scraper = write_pair(world, "scraper", f"{DOMAIN}/operator") if world else ("", "")
            for replica, port in mine.items():
                targets[slot.name + replica] = Target(port, *scraper)
        self.prometheus = Prometheus(folder, targets)

    def __enter__(self) -> Self:
        self.prometheus.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.prometheus.__exit__(kind, error, trace)


def quiet_ports(count: int) -> list[int]:
    """Ports that nobody uses, and that no outgoing connection is given."""
    found: list[int] = []
    port = random.randrange(15_000, 25_000)
    while len(found) < count:
        port += 1
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            found.append(port)
    return found


def write_pair(world: World, name: str, uri: str, **options: Any) -> tuple[str, str]:
    """A certificate for a client and its key, as files."""
    pair = world.authority.issue(uris=(uri,), **options)
    paths = [world.folder / f"{name}.{end}" for end in ("pem", "key")]
    for path, data in zip(paths, (pair.cert, pair.key), strict=True):
        path.write_bytes(data)
    return str(paths[0]), str(paths[1])


@dataclass
class Stage(contextlib.AsyncExitStack):
    """Starts what a fault needs and ends it afterwards."""

    slot: Slot
    pack: Path
    prometheus: Prometheus
    gateways: dict[str, Gateway] = field(default_factory=dict)
    traffic: Traffic | None = None

    def __post_init__(self) -> None:
        super().__init__()

    @property
    def folder(self) -> Path:
        """For its files."""
        return self.slot.folder

    @property
    def world(self) -> World:
        """Its certificates and tokens, where the fault is a secure one."""
        assert self.slot.world is not None
        return self.slot.world

    async def upstream(self, **options: Any) -> FakeUpstream:
        """A model server that can be spoiled."""
        return await self.enter_async_context(FakeUpstream(**options))

    async def gateway(
        self,
        name: str = "a",
        *,
        breakable: bool = False,
        model: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        more: str = "",
        **settings: Any,
    ) -> Gateway:
        """One gateway before the ensemble or, with `upstream` in `model`, a server.

        breakable: it takes words. more: further TOML. Other settings are of `[gateway]`.
        """
        chosen = {"name": "tiny", **(model or {})}
        if "upstream" not in chosen:
            chosen["answer"] = "ensemble"
        if self.slot.world is not None:
            more += _grants()
            settings |= _identity(self.slot.world)
        listen, path = f"127.0.0.1:{free_ports(1)[0]}", self.folder / f"{name}.toml"
        metrics = f"127.0.0.1:{self.slot.ports[name]}"
        write_config(path, self.pack, chosen, listen=listen, metrics=metrics, **settings)
        with path.open("a") as file:
            file.write(f"\n{more}")
        gateway = Gateway(path, listen, breakable=breakable, environment=environment or {})
        self.gateways[name] = gateway
        self.push_async_callback(gateway.kill)
        await gateway.start()
        return gateway

    def caller(self, role: str = "client", *, token: str = "", **options: Any) -> Caller:
        """How somebody with this role's certificate calls the gateway, or with a token too."""
        pair = self.world.authority.issue(uris=(f"{DOMAIN}/{role}",))
        shown = grpc.ssl_channel_credentials(self.world.authority.cert, pair.key, pair.cert)
        headers = (("authorization", f"Bearer {token}"),) if token else ()
        return Caller(
            self.gateways["a"].address,
            credentials=shown,
            options=(("grpc.ssl_target_name_override", "localhost"),),
            metadata=headers,
            **options,
        )

    async def calls(self, caller: Caller | None = None) -> Traffic:
        """Traffic for the rest of the fault."""
        chosen = caller or Caller(self.gateways["a"].address)
        self.traffic = await self.enter_async_context(Traffic(chosen))
        return self.traffic

    async def dead(self, gateway: Gateway, seconds: float = 20) -> None:
        """Waits until its health service says that only a restart helps."""
        async with asyncio.timeout(seconds), grpc.aio.insecure_channel(gateway.address) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            request = health_pb2.HealthCheckRequest(service=LIVE)
            while (await check(request)).status != health_pb2.HealthCheckResponse.NOT_SERVING:
                await asyncio.sleep(0.05)

    async def until(self, condition: Callable[[], bool], seconds: float = 20) -> float:
        """Waits for a condition; how long that took."""
        began = time.monotonic()
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.02)
        return time.monotonic() - began

    async def value(self, selector: str) -> float | None:
        """A metric of this fault's gateways, as Prometheus has it."""
        return await self.prometheus.value(selector, "|".join(self.slot.instances))

    async def alerts(self) -> set[str]:
        """The alerts that are on for gateways that were started here."""
        return await self.prometheus.alerts(tuple(self.slot.name + r for r in self.gateways))


def serve_with(world: World, pair: Pair) -> None:
    """Change the gateway's own certificate, as an issuer would: key first, renamed into place."""
    for name, data in {"key": pair.key, "cert": pair.cert}.items():
        new = world.folder / f"{name}.new"
        new.write_bytes(data)
        new.rename(world.folder / f"{name}.pem")


def _identity(world: World) -> dict[str, Any]:
    tls = world.tls(clients=True)
    tokens = {"keys": str(world.folder / "keys.json"), "issuer": ISSUER, "audience": AUDIENCE}
    files = {"cert": tls.cert, "key": tls.key, "client_ca": tls.client_ca}
    return {"tls": files, "identity": {"tokens": tokens}}


def _grants() -> str:
    lines = []
    for role in ROLES:
        for match in (f"{DOMAIN}/{role}", f"jwt:{role}"):
            lines += ["[[gateway.identity.grants]]", f'match = "{match}"', f'roles = ["{role}"]']
    return "\n".join(lines) + "\n"
