"""Promotion and rollback while a gateway serves: who may, what may, what is recorded."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from guard.client import CallError, Client
from guard.config import Config
from guard.errors import AuditError, PackError, UnknownModelError
from guard.gateway import promotion, protocol
from guard.gateway.audit.recorder import Audit
from guard.gateway.guarded import GuardedModel
from guard.gateway.identity import ANONYMOUS, Identity
from guard.gateway.loading import Loading
from guard.gateway.promotion import Promotions
from guard.gateway.server import running
from guard.gateway.status import ForbiddenError, NotOfferedError
from guard.pack import Pack
from guard.testing import clean_images, gateway_config, make_pack
from tests.gateway.children import make_child
from tests.gateway.setting import counted

TRAINER = Identity("jwt:tina", frozenset({"trainer", "approver"}), "jwt:tina", "token")
APPROVER = Identity("jwt:ada", frozenset({"approver"}), "jwt:ada", "token")


class Heard(Audit):
    """An audit log that remembers; `full` refuses what must be durable."""

    enabled = True

    def __init__(self) -> None:
        self.said: list[tuple[str, str, str]] = []
        self.digests: list[str] = []
        self.full = False

    def record(self, event: str, *, actor: str = "", outcome: str = "ok", **details: Any) -> None:
        """See `Audit`."""
        self.said.append((event, actor, outcome))
        self.digests.append(str(details.get("digest", "")))

    async def act(
        self, event: str, *, actor: str = "", outcome: str = "ok", **details: Any
    ) -> None:
        """See `Audit`."""
        if self.full:
            raise AuditError("the audit log is full")
        self.record(event, actor=actor, outcome=outcome, **details)


class Shop:
    """One model, its promotions, and what they told the audit log."""

    def __init__(self, config: Config) -> None:
        self.config, self.audit = config, Heard()
        loading = Loading(config, b"s" * 32)
        self.models = {model.name: loading.first(model) for model in config.models}
        self.changes = Promotions(loading, self.models, self.audit)

    @property
    def model(self) -> GuardedModel:
        """The one that serves."""
        return self.models["tiny"]

    @property
    def serving(self) -> str:
        """Its pack's name."""
        return self.model.pipeline.pack.name


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Shop]:
    """A shop, put away afterwards."""
    shop = Shop(config)
    for model in config.models:
        await shop.changes.start(model)
    yield shop
    await shop.changes.close()
    for model in shop.models.values():
        await model.close()


@pytest.fixture
def config(tiny_pack: Path, tmp_path: Path) -> Config:
    """Settings of a gateway before the tiny pack, with two generations that may follow."""
    one = make_child(tiny_pack, tmp_path / "packs" / "tiny-r1")
    make_child(one, tmp_path / "packs" / "tiny-r2")
    folders = {"packs": str(tmp_path / "packs"), "state": str(tmp_path / "state")}
    return gateway_config(tiny_pack, gateway=folders)


async def ask(address: str, question: Callable[[Client], Any]) -> Any:
    """One question through the blocking client, beside the gateway's loop."""

    def asking() -> Any:
        with Client(address) as client:
            return question(client)

    return await asyncio.to_thread(asking)


async def test_a_promoted_pack_serves_and_the_one_before_comes_back(
    tiny_pack: Path, config: Config
) -> None:
    """Over the wire: the very next answer is the new pack's, also after a restart."""
    child, first = Pack.load(Path(config.gateway.packs) / "tiny-r1"), Pack.load(tiny_pack)

    def answered(client: Client) -> str:
        return client.infer("tiny", clean_images([1])).pack

    async with running(config) as gateway:
        assert await ask(gateway.address, answered) == first.digest
        request = protocol.PromotePackRequest(pack="tiny-r1")
        standing = await ask(gateway.address, lambda one: one.call("PromotePack", request))
        assert (standing.current.pack, standing.current.serial) == ("tiny-r1", 1)
        assert await ask(gateway.address, answered) == child.digest
        status = await ask(gateway.address, lambda client: client.status())
        assert (status.models[0].requests, status.models[0].pack.digest) == (2, child.digest)
        with pytest.raises(CallError) as caught:
            await ask(gateway.address, lambda one: one.call("PromotePack", request))
        assert (caught.value.code, caught.value.reason) == ("FAILED_PRECONDITION", "PACK_REFUSED")
    async with running(config) as gateway:
        assert await ask(gateway.address, answered) == child.digest
        back = protocol.RollbackPackRequest(model_name="tiny")
        standing = await ask(gateway.address, lambda one: one.call("RollbackPack", back))
        assert (standing.current.pack, standing.current.digest) == ("", first.digest)
        assert await ask(gateway.address, answered) == first.digest
    labels = {"model": "tiny", "pack": "tiny", "digest": first.digest}
    assert counted("guard_pack_info", **labels) == 1
    assert counted("guard_pack_info", **{**labels, "pack": "tiny-r1", "digest": child.digest}) == 0


async def test_generations_are_gone_back_through_one_by_one(config: Config) -> None:
    """Each rollback takes one promotion back, and the last of them has nothing behind it."""
    async with opened(config) as shop:
        for name in ("tiny-r1", "tiny-r2"):
            await shop.changes.promote(ANONYMOUS, "", name)
        assert shop.serving == "tiny-r2"
        for name in ("tiny-r1", "tiny"):
            await shop.changes.roll_back(ANONYMOUS, "tiny")
            assert shop.serving == name
        with pytest.raises(PackError, match="none to go back to"):
            await shop.changes.roll_back(ANONYMOUS, "tiny")
        await shop.changes.promote(ANONYMOUS, "", "tiny-r1")
        assert shop.serving == "tiny-r1"
    assert counted("guard_pack_serial", model="tiny") == 1


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"gate": {"passed": False}}, "did not pass the gate"),
        ({"gate": {"passed": "yes"}}, "did not pass the gate"),
        ({"gate": {"against": "sha256:" + "1" * 64}}, "was compared with"),
        ({"gate": {"heads": ["upstream"]}}, "not judged by its head 'alone'"),
        ({"gate": {"heads": "alone"}}, "not judged by its head 'alone'"),
        ({"gate": {"judged": {"detector.onnx": "0" * 64}}}, "is not the one that was compared"),
        ({"gate": {"judged": None}}, "is not the one that was compared"),
        ({"serial": 0}, "no newer than"),
        ({"parent": "sha256:" + "1" * 64}, "was not made from"),
    ],
)
async def test_a_candidate_that_does_not_fit_is_never_promoted(
    tiny_pack: Path, config: Config, changes: dict[str, Any], why: str
) -> None:
    """Without a gate's yes against what serves, or from elsewhere: refused, and said why."""
    make_child(tiny_pack, Path(config.gateway.packs) / "other", **changes)
    async with opened(config) as shop:
        with pytest.raises(PackError, match=why):
            await shop.changes.promote(ANONYMOUS, "", "other")
        assert shop.serving == "tiny"
        (listed,) = await shop.changes.listed("")
        problems = {offer.name: offer.problem for offer in listed.offered}
        assert why in problems["other"]
        assert problems["tiny-r1"] == ""
    assert not Path(config.gateway.state).exists()


async def test_what_nobody_compared_or_signed_is_never_promoted(
    tiny_pack: Path, tmp_path: Path, config: Config
) -> None:
    """No report, another graph, no signature, a path instead of a name, nothing there."""
    packs = Path(config.gateway.packs)
    make_pack(packs / "ungated")
    make_pack(tmp_path / "wide" / "wider", shape=(3, 9, 9))
    make_child(tmp_path / "wide" / "wider", packs / "wider", parent=Pack.load(tiny_pack).digest)
    (make_child(tiny_pack, packs / "unsigned") / "model.sig").unlink()
    async with opened(config) as shop:
        for name, why in {
            "ungated": "was not made from",
            "wider": "another evidence graph",
            "unsigned": "unsigned is neither pinned .* nor signed",
            "../packs/tiny-r1": "there is no pack",
            "": "there is no pack",
            "missing": "there is no pack",
        }.items():
            with pytest.raises(PackError, match=why) as caught:
                await shop.changes.promote(ANONYMOUS, "", name)
            assert str(tmp_path) not in str(caught.value)
        assert shop.serving == "tiny"
        assert {outcome for _, _, outcome in shop.audit.said} == {"FAILED_PRECONDITION"}


async def test_what_does_not_run_elsewhere_never_runs_here(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A candidate is tried in a process of its own first; one that fails there is refused."""
    tried = []

    def failing(pack: Pack) -> None:
        tried.append(pack.name)
        raise PackError(f"{pack.name}: the golden vectors took too long")

    monkeypatch.setattr(promotion, "probe_once", failing)
    async with opened(config) as shop:
        for change in (shop.changes.promote, shop.changes.shadow):
            with pytest.raises(PackError, match="took too long"):
                await change(ANONYMOUS, "", "tiny-r1")
        assert (shop.serving, shop.model.shadow) == ("tiny", None)
    assert tried == ["tiny-r1", "tiny-r1"]


async def test_nobody_who_is_known_approves_what_they_submitted(config: Config) -> None:
    """Two people for each promotion: one has it watched, another lets it serve."""
    async with opened(config) as shop:
        with pytest.raises(PackError, match="was not submitted"):
            await shop.changes.promote(APPROVER, "", "tiny-r1")
        await shop.changes.shadow(TRAINER, "", "tiny-r1")
        with pytest.raises(ForbiddenError):
            await shop.changes.promote(TRAINER, "", "tiny-r1")
        _, standing = await shop.changes.promote(APPROVER, "", "tiny-r1")
        assert (standing.current.submitted_by, standing.current.approved_by) == (
            "jwt:tina",
            "jwt:ada",
        )
        assert shop.audit.said == [
            ("model.promote", "jwt:ada", "FAILED_PRECONDITION"),
            ("model.shadow", "jwt:tina", "ok"),
            ("model.promote", "jwt:ada", "ok"),
        ]
        assert shop.audit.digests[1:] == [standing.current.digest] * 2


async def test_a_pack_that_changed_since_it_was_submitted_is_not_promoted(
    tiny_pack: Path, config: Config
) -> None:
    """What is approved is what was watched, to the byte."""
    async with opened(config) as shop:
        folder = Path(config.gateway.packs) / "late"
        make_child(tiny_pack, folder)
        await shop.changes.shadow(TRAINER, "", "late")
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        make_child(tiny_pack, folder, factor=3.0)
        with pytest.raises(PackError, match="changed since it was submitted"):
            await shop.changes.promote(APPROVER, "", "late")


async def test_what_cannot_be_recorded_does_not_happen(config: Config) -> None:
    """No record or no state on disk: the pack that served goes on, and says it is the one."""
    async with opened(config) as shop:
        shop.audit.full = True
        with pytest.raises(AuditError):
            await shop.changes.promote(ANONYMOUS, "", "tiny-r1")
        shop.audit.full = False
        Path(config.gateway.state).write_text("a file where the folder should be")
        with pytest.raises(PackError, match="cannot be read: Not a dir"):
            await shop.changes.promote(ANONYMOUS, "", "tiny-r1")
        assert shop.serving == "tiny"


async def test_a_change_goes_on_when_its_caller_leaves(config: Config) -> None:
    """A caller who gives up does not leave state and process with two opinions."""
    async with opened(config) as shop:
        asking = asyncio.create_task(shop.changes.promote(ANONYMOUS, "", "tiny-r1"))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await shop.changes.close()
        assert shop.serving == "tiny-r1"
        state = json.loads((Path(config.gateway.state) / "tiny.json").read_text())
        assert state["current"]["pack"] == "tiny-r1"


async def test_who_guards_one_tenant_alone_changes_nothing_for_all(config: Config) -> None:
    """A model's pack is every tenant's; unknown models are said to be unknown."""
    scoped = Identity("jwt:eve", frozenset({"approver"}), "north", "token", "north")
    async with opened(config) as shop:
        with pytest.raises(ForbiddenError):
            await shop.changes.roll_back(scoped, "")
        with pytest.raises(UnknownModelError):
            await shop.changes.promote(ANONYMOUS, "other", "tiny-r1")


async def test_nothing_is_promoted_where_no_folder_is_named(tiny_pack: Path) -> None:
    """Without the settings the calls do not exist."""
    async with opened(gateway_config(tiny_pack)) as shop:
        with pytest.raises(NotOfferedError):
            await shop.changes.promote(ANONYMOUS, "", "tiny-r1")


async def test_a_start_refuses_what_is_not_as_it_was_approved(
    tiny_pack: Path, config: Config
) -> None:
    """Another pack under the approved name, one that is too old, a state that nobody can read."""
    async with opened(config) as shop:
        await shop.changes.promote(ANONYMOUS, "", "tiny-r1")
    file = Path(config.gateway.state) / "tiny.json"
    good = file.read_text()
    for text, why in (
        (good.replace("sha256:", "sha256:0", 1), "gateway.state says"),
        (good.replace('"tiny-r1"', '"tiny-r9"'), "there is no pack"),
        (good.replace('"model": "tiny"', '"model": "other"'), "malformed"),
        ("{", "malformed"),
        ("[]", "malformed"),
    ):
        file.write_text(text)
        with pytest.raises(PackError, match=why):
            Shop(config)
    file.write_text(good)
    strict = gateway_config(
        tiny_pack,
        gateway={"packs": config.gateway.packs, "state": config.gateway.state},
        min_serial=2,
    )
    with pytest.raises(PackError, match="serial"):
        Shop(strict)
