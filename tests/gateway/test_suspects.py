"""The calls about suspects, over the wire, through the client."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.client import CallError, Client
from guard.config import Gateway
from guard.errors import InputError, StoreError
from guard.gateway import protocol, suspectwire
from guard.gateway.desk import Desk
from guard.gateway.operators import GuardServicer
from guard.gateway.servicer import InferenceServicer
from guard.suspects.record import Counts, Filter, Review, Row, Suspect
from guard.suspects.suspect_store import SuspectStore
from guard.verdict import Decision
from tests.gateway.shelf import MISSING, filled, open_shelf, suspect, swift_folder

METHODS = {
    name: method for name, method in protocol.GUARD_METHODS.items() if "Suspect" in method.path
} | {name: protocol.GUARD_METHODS[name] for name in ("UndoLabel", "SubmitFeedback")}


@asynccontextmanager
async def served(desk: Desk | None) -> AsyncIterator[str]:
    """`guard.v1.Guard` over a desk, on loopback; its address."""
    server = grpc.aio.server()
    inference = InferenceServicer({}, Gateway())
    server.add_generic_rpc_handlers((GuardServicer(inference, desk).handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(0)


async def ask(address: str, question: Callable[[Client], Any]) -> Any:
    """One question through the blocking client, beside the server's loop."""

    def asking() -> Any:
        with Client(address) as client:
            return question(client)

    return await asyncio.to_thread(asking)


@pytest.fixture
async def place() -> AsyncIterator[tuple[SuspectStore, str]]:
    """A store, and the address of a service over it."""
    with swift_folder() as folder:
        store = open_shelf(folder)
        desk = Desk(store)
        async with served(desk) as address:
            yield store, address
        desk.close()
        store.close()


async def test_a_suspect_arrives_bit_for_bit(place: tuple[SuspectStore, str]) -> None:
    """Row and record as the store has them; without the picture where none was asked for."""
    store, address = place
    kept = filled(store, 3)
    for one in kept:
        seen = await ask(address, lambda client, i=one.id: client.suspects.get(i))
        assert seen.row == _rounded(store.row(one.id))
        suspect = seen.suspect
        for name in ("image", "evidence", "probabilities", "upstream"):
            mine, theirs = getattr(one, name), getattr(suspect, name)
            assert (mine is None and theirs is None) or mine.tobytes() == theirs.tobytes()
        assert suspect.verdict.scores == pytest.approx(one.verdict.scores)
        assert (suspect.alarms, suspect.budget, suspect.trace) == (
            one.alarms, one.budget, one.trace
        )  # fmt: skip
    raw = await _raw(address, "GetSuspect", protocol.GetSuspectRequest(id=kept[0].id))
    assert not raw.HasField("suspect")
    assert kept[0].image.tobytes() not in raw.SerializeToString()


def _rounded(row: Row) -> Row:
    """P-values travel as float32."""
    return dataclasses.replace(row, p_value=float(np.float32(row.p_value)))


async def _raw(address: str, name: str, request: Any) -> Any:
    async with grpc.aio.insecure_channel(address) as channel:
        return await protocol.unary_call(channel, protocol.GUARD_METHODS[name])(request)


async def test_numbers_that_are_none_arrive_as_such(place: tuple[SuspectStore, str]) -> None:
    """What could not be examined has no p-value, and is listed all the same."""
    store, address = place
    store.put([suspect(store, 1, p_value=float("nan"), decision=Decision.ABSTAIN)])
    (row,) = (await ask(address, lambda client: client.suspects.rows())).rows
    assert row.decision is Decision.ABSTAIN
    assert np.isnan(row.p_value)


async def test_a_review_from_list_to_undo(place: tuple[SuspectStore, str]) -> None:
    """List, page, claim, label, count, undo, feedback: as the store then says."""
    store, address = place
    kept = [one.id for one in filled(store, 5)]

    def review(client: Client) -> None:
        suspects = client.suspects
        first = suspects.rows(order="oldest", limit=3)
        rest = suspects.rows(order="oldest", after=first.after, limit=3)
        assert [row.id for row in (*first.rows, *rest.rows)] == kept
        assert rest.after is None
        assert len(suspects.claim(limit=2)) == 2
        changed = suspects.label(kept[:2], "adversarial")
        assert {row.label for row in changed} == {"adversarial"}
        counts = suspects.counts()
        assert isinstance(counts, Counts)
        assert (counts.total, counts.by_state["agreed"]) == (5, 2)
        assert [row.id for row in suspects.rows(Filter(label="adversarial")).rows] == kept[1::-1]
        assert {row.state for row in suspects.undo()} == {"open"}
        assert suspects.undo() == ()
        assert len(suspects.similar(kept[0], 2)) <= 2

    await ask(address, review)
    assert store.row(kept[0]).reviews == ()


async def test_what_is_left_open_has_a_default(place: tuple[SuspectStore, str]) -> None:
    """A list of 50, one claim, an export of 100, newest first: as the .proto file says."""
    store, address = place
    filled(store, 120)
    listed = await _raw(address, "ListSuspects", protocol.ListSuspectsRequest())
    assert len(listed.rows) == 50
    assert listed.rows[0].taken > listed.rows[1].taken
    assert len((await _raw(address, "ClaimSuspects", protocol.ClaimSuspectsRequest())).rows) == 1
    exported = await _raw(address, "ExportSuspects", protocol.ExportSuspectsRequest())
    assert len(exported.suspects) == 100
    assert exported.after


async def test_export_and_erasure(place: tuple[SuspectStore, str]) -> None:
    """All of them in full, page by page; erased by name they are gone."""
    store, address = place
    kept = filled(store, 7)
    store.put([suspect(store, 9, client="jwt:other")])
    seen = await ask(address, lambda client: list(client.suspects.export(page=3)))
    assert [one.suspect.id for one in seen[:7]] == [one.id for one in kept]
    assert all(
        (mine.suspect.image == theirs.image).all() for mine, theirs in zip(seen, kept, strict=False)
    )
    count = await ask(address, lambda client: client.suspects.erase(client_name="jwt:camera"))
    assert count == 7
    assert store.counts().total == 1
    assert await ask(address, lambda client: client.suspects.rotate()) == 1


async def test_mistakes_have_their_codes(place: tuple[SuspectStore, str]) -> None:
    """Unknown ids, numbers that mean nothing, contradictions, garbage: never INTERNAL."""
    store, address = place
    (known,) = filled(store, 1)
    asked = {
        "NOT_FOUND": [
            lambda c: c.suspects.get(MISSING),
            lambda c: c.suspects.label([known.id, MISSING], "benign"),
            lambda c: c.suspects.feedback(MISSING, "benign"),
            lambda c: c.suspects.feedback(known.id, "benign"),  # somebody else sent it
        ],
        "INVALID_ARGUMENT": [
            lambda c: c.suspects.get("../../keys"),
            lambda c: c.suspects.erase(),
            lambda c: c.suspects.rows(limit=100_000),
            lambda c: c.suspects.rows(after="x" * 5000),
            lambda c: c.suspects.rows(Filter(taken_from=float("nan"))),
            lambda c: c.suspects.rows(Filter(p_value_at_most=float("inf"))),
            lambda c: c.suspects.rows(Filter(client="a"), client_name="b"),
            lambda c: c.call("LabelSuspects", protocol.LabelSuspectsRequest(ids=[known.id])),
            lambda c: c.call(
                "LabelSuspects", protocol.LabelSuspectsRequest(ids=[known.id], label=99)
            ),
            lambda c: c.call("ListSuspects", protocol.ListSuspectsRequest(order=7)),
            lambda c: c.call("ListSuspects", protocol.ListSuspectsRequest(order=-1)),
            lambda c: c.call("ListSuspects", protocol.ListSuspectsRequest(filter={"decision": 17})),
            lambda c: c.call("CountSuspects", protocol.CountSuspectsRequest(filter={"state": 0})),
        ],
    }
    for code, questions in asked.items():
        for question in questions:
            with pytest.raises(CallError) as caught:
                await ask(address, question)
            assert caught.value.code == code
    assert store.row(known.id).reviews == ()


async def test_garbage_is_refused_by_every_call(place: tuple[SuspectStore, str]) -> None:
    """Bytes that are no message."""
    _, address = place
    async with grpc.aio.insecure_channel(address) as channel:
        for method in METHODS.values():
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(method.path)(b"\xff\xff\xff\xff garbage")
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_where_nothing_is_kept_every_call_says_so() -> None:
    """A gateway without a store answers UNIMPLEMENTED, with a reason a program can read."""
    async with served(None) as address, grpc.aio.insecure_channel(address) as channel:
        for method in METHODS.values():
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(method.path)(b"")
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_store_that_is_away_is_unavailable() -> None:
    """StoreError is UNAVAILABLE, and its text says nothing of what was asked."""

    class Away:
        def rows(self, *_: Any, **__: Any) -> Any:
            raise StoreError("the index does not answer")

    desk = Desk(Away())  # type: ignore[arg-type]
    async with served(desk) as address:
        with pytest.raises(CallError) as caught:
            await ask(address, lambda client: client.suspects.rows())
    assert (caught.value.code, caught.value.reason) == ("UNAVAILABLE", "STORE")
    desk.close()


TEXT = st.none() | st.text(max_size=20).filter(lambda text: text.isprintable())
NUMBER = st.none() | st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=60, deadline=None)
@given(
    st.builds(
        Filter,
        ids=st.none() | st.lists(st.text(max_size=40), min_size=1).map(tuple),
        model=TEXT,
        pack=TEXT,
        tenant=TEXT,
        client=TEXT,
        predicted=st.none() | st.integers(-(2**63), 2**63 - 1),
        decision=st.none() | st.sampled_from(list(Decision)),
        defense=TEXT,
        sampled=st.none() | st.booleans(),
        state=st.sampled_from([None, "open", "agreed", "disputed"]),
        label=st.sampled_from([None, "adversarial", "benign", "unsure"]),
        taken_from=NUMBER,
        taken_before=NUMBER,
        p_value_at_most=NUMBER,
    )
)
def test_a_filter_means_the_same_after_travelling(wanted: Filter) -> None:
    """Any filter, empty names and zeros included."""
    data = suspectwire.write_filter(wanted).SerializeToString()
    read = suspectwire.read_filter(protocol.SuspectFilter.FromString(data))
    assert read == wanted


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"state": 0}, "state is not set"),
        ({"state": 9}, "state 9 is not known here"),
        ({"label": 0}, "label is not set"),
        ({"label": -1}, "label -1 is not known here"),
        ({"decision": 5}, "decision 5 is not known here"),
        ({"taken_before": float("nan")}, "taken_before: nan"),
        ({"p_value_at_most": float("inf")}, "p_value_at_most: inf"),
    ],
)
def test_a_bad_filter_is_named(fields: dict[str, Any], text: str) -> None:
    """The complaint says which part of the filter is wrong."""
    with pytest.raises(InputError) as caught:
        suspectwire.read_filter(protocol.SuspectFilter(**fields))
    assert str(caught.value).startswith(text)


def test_a_name_becomes_its_hash() -> None:
    """Names are hashed where the key is; both at once is a contradiction."""
    message = suspectwire.write_filter(Filter(), client_name="jwt:alice")
    assert suspectwire.read_filter(message, "hash").client == "hash"
    with pytest.raises(InputError):  # a filter that forgot the name would mean everybody
        suspectwire.read_filter(message)
    message.client = "x"
    with pytest.raises(InputError):
        suspectwire.read_filter(message, "hash")


def test_every_field_of_a_row_travels() -> None:
    """A row survives the wire whole: a new field that is forgotten fails here."""
    row = Row(
        id="a" * 32, taken=12.5, model="m", pack="p", tenant="t", client="c", sampled=True,
        decision=Decision.FLAG, p_value=0.25, predicted=-1, alarms=("detector",), seen=3,
        bytes=99, state="disputed", label="unsure",
        reviews=(Review("ana", "benign", 1.5), Review("c", "unsure", 2.5, "client")),
    )  # fmt: skip
    assert suspectwire.read_row(suspectwire.write_row(row)) == row
    changed = [f.name for f in dataclasses.fields(Row)]
    assert all(getattr(row, name) not in ("", 0, False, None, ()) for name in changed)


def test_what_of_a_suspect_stays_behind() -> None:
    """Seeds, codes and places in a run are for replays on the gateway's own machine."""
    fields = set(protocol.Suspect.DESCRIPTOR.fields_by_name)
    fields |= set(protocol.SuspectRow.DESCRIPTOR.fields_by_name)
    missing = {field.name for field in dataclasses.fields(Suspect)} - fields
    assert missing == {"near", "noise_index", "engine", "place", "judged"}
