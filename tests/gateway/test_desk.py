"""The desk: who may do what with whose suspects, and that all of it is on record."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from guard.config.access import Role
from guard.errors import (
    AuditError,
    InputError,
    StoreError,
    UnknownSuspectError,
)
from guard.gateway import desk as desk_module
from guard.gateway import permissions
from guard.gateway.desk import Desk
from guard.gateway.identity import ANONYMOUS, ROLES, Identity
from guard.gateway.status import ForbiddenError
from guard.suspects.record import Filter, Review
from guard.suspects.suspect_store import SuspectStore
from tests.gateway.shelf import MISSING, Notes, filled, person, suspect

ANA, BEN = person("ana", "analyst"), person("ben", "analyst")
CAMERA = person("camera", "client")
TRAINER, PRIVACY = person("tom", "trainer"), person("pia", "privacy")
RED = Filter(predicted=0)
Act = Callable[[Desk, Identity, str], Awaitable[Any]]
ACTS: dict[str, tuple[str, Act]] = {  # by name: the call whose permission it needs
    "rows": ("ListSuspects", lambda d, w, _: d.rows(w)),
    "row": ("GetSuspect", lambda d, w, i: d.row(w, i)),
    "view": ("GetSuspect", lambda d, w, i: d.view(w, i)),
    "similar": ("GetSuspect", lambda d, w, i: d.similar(w, i)),
    "counts": ("CountSuspects", lambda d, w, _: d.counts(w)),
    "claim": ("ClaimSuspects", lambda d, w, _: d.claim(w)),
    "label": ("LabelSuspects", lambda d, w, i: d.label(w, [i], "benign")),
    "undo": ("UndoLabel", lambda d, w, _: d.undo(w)),
    "feedback": ("SubmitFeedback", lambda d, w, i: d.feedback(w, i, "benign")),
    "export": ("ExportSuspects", lambda d, w, _: d.export(w, RED)),
    "rotate": ("RotateSuspectKeys", lambda d, w, _: d.rotate(w)),
    "erase": ("EraseSuspects", lambda d, w, _: d.erase(w, RED)),
}
ONE = [name for name, (call, _) in ACTS.items() if call not in (
    "ListSuspects", "CountSuspects", "ClaimSuspects", "UndoLabel", "ExportSuspects",
    "RotateSuspectKeys", "EraseSuspects",
)]  # fmt: skip


@pytest.fixture
def notes() -> Notes:
    """What was recorded."""
    return Notes()


@pytest.fixture
def desk(store: SuspectStore, notes: Notes) -> Iterator[Desk]:
    """A desk as the console has one."""
    desk = Desk(store, notes, via="console")
    yield desk
    desk.close()


async def test_each_role_may_what_the_table_says(
    desk: Desk, store: SuspectStore, notes: Notes
) -> None:
    """Every act, by every role: done where the table of permissions says so, else on record."""
    for call, act in ACTS.values():
        allowed = permissions.TABLE[f"/guard.v1.Guard/{call}"]
        for role in ROLES:
            (known,) = filled(store, 1)
            who = person("camera", role)
            if role in allowed:
                await act(desk, who, known.id)
                continue
            notes.lines.clear()
            with pytest.raises(ForbiddenError):
                await act(desk, who, known.id)
            details = {"rpc": call, "via": "console", "why": "forbidden"}
            assert notes.lines == [("refused.permission", who.name, "refused", details)]


async def test_everything_is_on_record(desk: Desk, store: SuspectStore, notes: Notes) -> None:
    """Each act leaves a record of who did what; counting, which the console polls, does not."""
    events = {
        "view": "suspect.view",
        "label": "suspect.label",
        "undo": "suspect.label",
        "feedback": "suspect.label",
        "export": "suspect.export",
        "erase": "suspect.erase",
        "rotate": "suspect.rotate",
    }
    who = person("camera", *ROLES)
    for name, (call, act) in ACTS.items():
        (known,) = filled(store, 1)
        notes.lines.clear()
        await act(desk, who, known.id)
        if name == "counts":
            assert not notes.lines
            continue
        event, actor, outcome, details = notes.lines[0]
        assert event == events.get(name, "admin.call"), name
        assert (actor, outcome) == (who.name, "ok")
        assert (details["rpc"], details["via"]) == (call, "console")
        if name in ONE:
            assert details["suspects"] == [known.id], name
        results = {
            "erase": ("erased", 1),
            "rotate": ("wrapped", 1),
            "undo": ("suspects", [known.id]),
        }
        if name in results:
            key, value = results[name]
            assert notes.lines[1][3][key] == value, name
            assert (notes.lines[1][0], notes.lines[1][1]) == (event, who.name)
        else:
            assert len(notes.lines) == 1, name


async def test_what_cannot_be_recorded_is_not_done(
    desk: Desk, store: SuspectStore, notes: Notes
) -> None:
    """With the audit log full nothing is shown, nothing is changed."""
    (known,) = filled(store, 1)
    before = store.row(known.id)
    notes.full = True
    who = person("camera", *ROLES)
    for name, (_, act) in ACTS.items():
        if name == "counts":
            continue
        with pytest.raises(AuditError):
            await act(desk, who, known.id)
        assert store.row(known.id) == before, name


async def test_what_fails_is_on_record_too(desk: Desk, store: SuspectStore, notes: Notes) -> None:
    """An id that is not there, or a store that is away, leaves the status beside the name."""
    with pytest.raises(UnknownSuspectError, match=r"^no such suspect$"):
        await desk.view(ANA, MISSING)
    with pytest.raises(UnknownSuspectError):
        await desk.label(ANA, [MISSING], "benign")
    shown = [(event, outcome) for event, _, outcome, _ in notes.lines]
    assert shown == [
        ("suspect.view", "NOT_FOUND"), ("suspect.label", "ok"), ("suspect.label", "NOT_FOUND")
    ]  # fmt: skip


async def test_another_tenants_suspects_do_not_exist(
    desk: Desk, store: SuspectStore, notes: Notes
) -> None:
    """Who belongs to a tenant sees, labels, counts, exports and erases that tenant's alone."""
    mine = suspect(store, 1, tenant="north")
    theirs, nobodys = suspect(store, 2, tenant="south"), suspect(store, 3)
    store.put([mine, theirs, nobodys])
    ana = person("ana", *ROLES, scope="north")
    assert [row.id for row in (await desk.rows(ana)).rows] == [mine.id]
    assert (await desk.counts(ana)).total == 1
    assert [view.row.id for view in (await desk.export(ana, Filter())).views] == [mine.id]
    assert [row.id for row in await desk.claim(ana, limit=10)] == [mine.id]
    assert await desk.similar(ana, mine.id) == []
    for foreign in (theirs.id, nobodys.id):
        for name in ONE:
            with pytest.raises(UnknownSuspectError, match=r"^no such suspect$"):
                await ACTS[name][1](desk, ana, foreign)
        with pytest.raises(UnknownSuspectError):
            await desk.label(ana, [mine.id, foreign], "benign")
    assert await desk.erase(ana, Filter(ids=[theirs.id, nobodys.id])) == 0
    with pytest.raises(ForbiddenError):
        await desk.rows(ana, Filter(tenant="south"))
    assert notes.lines[-1][0] == "refused.permission"
    with pytest.raises(ForbiddenError):
        await desk.rotate(ana)
    assert store.row(mine.id).reviews == ()
    assert await desk.erase(ana, Filter(taken_from=0.0)) == 1
    assert (await desk.counts(ANA)).total == 2


async def test_a_client_speaks_of_its_own_suspects_only(desk: Desk, store: SuspectStore) -> None:
    """Feedback is shown, settles nothing, names nobody; on another's suspect it is refused."""
    known, other = filled(store, 2)
    await desk.feedback(CAMERA, known.id, "benign")
    row = await desk.row(ANA, known.id)
    assert row.state == "open"
    (said,) = row.reviews
    assert (said.source, said.label, said.reviewer) == ("client", "benign", known.client)
    with pytest.raises(UnknownSuspectError):
        await desk.feedback(person("other", "client"), other.id, "benign")
    await desk.label(ANA, [known.id], "adversarial")
    await desk.feedback(CAMERA, known.id, "benign")
    assert (await desk.row(ANA, known.id)).label == "adversarial"


async def test_a_client_learns_nothing_of_the_store(notes: Notes) -> None:
    """Where the store is and what is wrong with it, reviewers are told, clients are not."""

    class Away:
        def pseudonym(self, _name: str) -> str:
            raise StoreError("/var/lib/guard/suspects: no space left")

        def row(self, _id: str) -> Any:
            raise StoreError("/var/lib/guard/suspects: no space left")

    desk = Desk(Away(), notes)  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="var/lib"):
        await desk.row(ANA, MISSING)
    with pytest.raises(StoreError) as caught:
        await desk.feedback(CAMERA, MISSING, "benign")
    assert "/" not in str(caught.value)
    assert [outcome for _, _, outcome, _ in notes.lines] == ["UNAVAILABLE", "ok", "UNAVAILABLE"]
    desk.close()


async def test_two_reviewers_where_two_are_required(store: SuspectStore) -> None:
    """One word is not enough, the same person twice is one, two who differ dispute; undo undoes."""
    desk = Desk(store, required=2)
    (known,) = filled(store, 1)
    for _ in range(2):
        (row,) = await desk.label(ANA, [known.id], "benign")
        assert (row.state, row.label) == ("open", None)
    (row,) = await desk.label(BEN, [known.id], "adversarial")
    assert row.state == "disputed"
    (row,) = await desk.undo(BEN)
    assert row.state == "open"
    await desk.feedback(CAMERA, known.id, "benign")
    assert (await desk.row(ANA, known.id)).state == "open"
    (row,) = await desk.label(BEN, [known.id], "benign")
    assert (row.state, row.label) == ("agreed", "benign")
    desk.close()


async def test_claims_keep_reviewers_apart(desk: Desk, store: SuspectStore) -> None:
    """What one reviewer has taken no other is given."""
    filled(store, 4)
    assert len(await desk.claim(ANA)) == 1
    hers = {row.id for row in await desk.claim(ANA, limit=3)}
    his = {row.id for row in await desk.claim(BEN, limit=3)}
    assert (len(hers), len(his)) == (3, 1)
    assert not hers & his


HOSTILE = (
    "",
    "x",
    "A" * 32,
    "../../etc/passwd",
    "a" * 65,
    "a b",
    "a\0b" * 10,
    "' OR 1=1 --",
    "ａ" * 32,
)


async def test_what_is_no_id_is_refused() -> None:
    """Paths, quotes, other alphabets and lengths never reach a store."""
    desk = Desk(None)  # type: ignore[arg-type]  # whatever asks it fails otherwise
    for hostile in HOSTILE:
        for name in ONE:
            with pytest.raises(InputError):
                await ACTS[name][1](desk, person("all", *ROLES), hostile)
        with pytest.raises(InputError):
            await desk.rows(ANA, Filter(ids=[MISSING, hostile]))
    desk.close()


async def test_limits_of_what_may_be_asked(desk: Desk, store: SuspectStore, notes: Notes) -> None:
    """Too many, too few, no label, no filter, names without end: the caller's mistakes."""
    filled(store, 1)
    many = [f"{number:032d}" for number in range(1001)]
    asks: list[Awaitable[Any]] = [
        desk.erase(PRIVACY, Filter(ids=many)),
        desk.rows(ANA, limit=0),
        desk.rows(ANA, limit=501),
        desk.rows(ANA, Filter(ids=[])),
        desk.rows(ANA, Filter(ids=many)),
        desk.rows(ANA, Filter(model="m" * 201)),
        desk.rows(ANA, Filter(defense="a\0b")),
        desk.rows(ANA, after="no page ends so"),
        desk.claim(ANA, limit=101),
        desk.label(ANA, [], "benign"),
        desk.label(ANA, many, "benign"),
        desk.label(ANA, [MISSING], "friendly"),
        desk.similar(ANA, MISSING, 0),
        desk.export(TRAINER, Filter(), limit=501),
        desk.erase(PRIVACY, Filter()),
    ]
    for ask in asks:
        with pytest.raises(InputError):
            await ask
    assert sum(len(str(line)) for line in notes.lines) < 5000
    assert (await desk.counts(ANA)).total == 1


async def test_the_record_says_which_were_meant(desk: Desk, notes: Notes) -> None:
    """The filter stands in the record as far as it says anything, ids in their own place."""
    await desk.rows(ANA)
    await desk.rows(ANA, Filter(model="tiny", predicted=0, sampled=False, state="open"))
    await desk.erase(PRIVACY, Filter(ids=[MISSING], tenant=""))
    said = [details.get("filter") for *_, details in notes.lines[:3]]
    assert said == [
        "all", '{"model": "tiny", "predicted": 0, "sampled": false, "state": "open"}',
        '{"tenant": ""}',
    ]  # fmt: skip
    assert notes.lines[2][3]["suspects"] == [MISSING]


async def test_what_is_erased_meanwhile_is_left_out(store: SuspectStore) -> None:
    """An export goes on past a suspect that was there a moment ago."""
    kept = filled(store, 3)

    class Fading:
        rows = staticmethod(store.rows)

        def get(self, suspect_id: str) -> Any:
            if suspect_id == kept[1].id:
                raise UnknownSuspectError("erased")
            return store.get(suspect_id)

    desk = Desk(Fading())  # type: ignore[arg-type]
    views = (await desk.export(TRAINER, Filter())).views
    assert [view.row.id for view in views] == [kept[0].id, kept[2].id]
    desk.close()


async def test_a_thousand_labelled_at_once_are_all_on_record(
    desk: Desk, store: SuspectStore, notes: Notes
) -> None:
    """More ids than a record holds take several records; doubles count once."""
    ids = [one.id for one in filled(store, 40)]
    rows = await desk.label(ANA, [*ids, ids[0]], "benign")
    assert len(rows) == 40
    named = [one for *_, details in notes.lines for one in details["suspects"]]  # type: ignore[attr-defined]
    assert sorted(named) == sorted(ids)
    assert all(len(details["suspects"]) <= 16 for *_, details in notes.lines)  # type: ignore[arg-type]


async def test_an_export_goes_on_where_it_stopped(
    desk: Desk, store: SuspectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages are cut by bytes as well as by number, and nothing is missed or repeated."""
    kept = [one.id for one in filled(store, 9)]
    size = max(store.row(one).bytes for one in kept)
    monkeypatch.setattr(desk_module, "EXPORT_BYTES", 2 * size)
    found, pages, after = [], 0, None
    while pages == 0 or after:
        page = await desk.export(TRAINER, Filter(), after=after, limit=5)
        found += [view.suspect.id for view in page.views]
        pages, after = pages + 1, page.after
    assert found == kept
    assert pages == 5
    monkeypatch.setattr(desk_module, "EXPORT_BYTES", 0)
    assert len((await desk.export(TRAINER, Filter(), limit=5)).views) == 1


async def test_where_nobody_is_known_anybody_may(desk: Desk, store: SuspectStore) -> None:
    """Without identities everybody is the same person, who has every role and sees all tenants'."""
    known = suspect(store, 1, client=ANONYMOUS.name, tenant="north")
    store.put([known])
    await desk.feedback(ANONYMOUS, known.id, "unsure")
    await desk.label(ANONYMOUS, [known.id], "adversarial")
    assert (await desk.view(ANONYMOUS, known.id)).suspect.image.shape == known.image.shape


async def test_erasure_by_name(desk: Desk, store: SuspectStore, notes: Notes) -> None:
    """A client's name finds all that it sent, and is in no record."""
    filled(store, 3)
    other = suspect(store, 7, client="jwt:other")
    store.put([other])
    wanted = Filter(client=await desk.pseudonym("jwt:camera"))
    assert await desk.erase(PRIVACY, wanted) == 3
    assert [row.id for row in (await desk.rows(ANA)).rows] == [other.id]
    assert "camera" not in str(notes.lines)
    assert store.review([other.id], Review("ana", "benign", 1.0))


def test_every_call_about_suspects_has_an_act_here() -> None:
    """Nothing in the service escapes the tests above."""
    role: Role = "analyst"
    assert role in permissions.TABLE["/guard.v1.Guard/ListSuspects"]
    calls = {path.rpartition("/")[2] for path in permissions.TABLE if "guard.v1" in path}
    others = {"Status", "Inspect", *(call for call in calls if call.endswith(("Pack", "Packs")))}
    assert calls - others == {call for call, _ in ACTS.values()}
