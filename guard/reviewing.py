"""Suspects through a gateway: what `Client.suspects` offers. Which calls succeed, roles decide.

>>> with Client("127.0.0.1:8001") as client:                              # doctest: +SKIP
...     for row in client.suspects.claim(limit=10):
...         seen = client.suspects.get(row.id)
...         client.suspects.label([row.id], "benign")
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from guard.gateway import protocol, suspectwire
from guard.gateway.protocol import Message
from guard.suspects.record import Counts, Filter, Label, Page, Row, Suspect
from guard.suspects.store import Order

ALL = Filter()
LONG_SECONDS = 600.0  # for what goes through many records


class Seen(NamedTuple):
    """A suspect in full, with the row that says how far its review is."""

    row: Row
    suspect: Suspect


class Suspects:
    """The calls about suspects, over one connection; each raises CallError when it fails.

    Filters may name a client by `Filter.client`, the hash that rows have, or by `client_name`, as
    the gateway knows callers: "jwt:alice".
    """

    def __init__(self, call: Callable[..., Message]) -> None:
        self._call = call

    def rows(
        self,
        wanted: Filter = ALL,
        *,
        client_name: str | None = None,
        order: Order = "newest",
        after: str | None = None,
        limit: int = 50,
    ) -> Page:
        """A page, without pictures; go on with its `after`."""
        request = protocol.ListSuspectsRequest(
            filter=suspectwire.write_filter(wanted, client_name=client_name),
            order=suspectwire.ORDERS.index(order),
            after=after or "",
            limit=limit,
        )
        answer = self._call("ListSuspects", request)
        return Page(_rows(answer), answer.after or None)

    def row(self, suspect_id: str) -> Row:
        """What is known of one without its picture."""
        request = protocol.GetSuspectRequest(id=suspect_id)
        return suspectwire.read_row(self._call("GetSuspect", request).row)

    def get(self, suspect_id: str) -> Seen:
        """One in full, picture and all; `noise_index` and `near` stay with the gateway."""
        request = protocol.GetSuspectRequest(id=suspect_id, picture=True)
        return _seen(self._call("GetSuspect", request))

    def similar(self, suspect_id: str, limit: int = 20) -> tuple[Row, ...]:
        """Those that look like it, most alike first."""
        request = protocol.GetSuspectRequest(id=suspect_id, similar=limit)
        answer = self._call("GetSuspect", request)
        return tuple(suspectwire.read_row(row) for row in answer.similar)

    def counts(self, wanted: Filter = ALL, *, client_name: str | None = None) -> Counts:
        """How many there are."""
        asked = suspectwire.write_filter(wanted, client_name=client_name)
        answer = self._call("CountSuspects", protocol.CountSuspectsRequest(filter=asked))
        return suspectwire.read_counts(answer)

    def claim(
        self, wanted: Filter = ALL, *, client_name: str | None = None, limit: int = 1
    ) -> tuple[Row, ...]:
        """Open ones that nobody else is given for a while."""
        asked = suspectwire.write_filter(wanted, client_name=client_name)
        request = protocol.ClaimSuspectsRequest(filter=asked, limit=limit)
        return _rows(self._call("ClaimSuspects", request))

    def label(self, ids: Sequence[str], label: Label) -> tuple[Row, ...]:
        """Say what these are, in one step that `undo` takes back as one."""
        number = suspectwire.LABELS.index(label)
        request = protocol.LabelSuspectsRequest(ids=ids, label=number)
        return _rows(self._call("LabelSuspects", request))

    def undo(self) -> tuple[Row, ...]:
        """Take back our own last labelling; empty where there is none."""
        return _rows(self._call("UndoLabel", protocol.UndoLabelRequest()))

    def feedback(self, suspect_id: str, label: Label) -> None:
        """Say, as who sent it, what it was: "benign" where it was a false alarm."""
        number = suspectwire.LABELS.index(label)
        self._call("SubmitFeedback", protocol.SubmitFeedbackRequest(id=suspect_id, label=number))

    def export(
        self, wanted: Filter = ALL, *, client_name: str | None = None, page: int = 100
    ) -> Iterator[Seen]:
        """All of them in full, oldest first, fetched page by page."""
        asked = suspectwire.write_filter(wanted, client_name=client_name)
        after = ""
        while True:
            request = protocol.ExportSuspectsRequest(filter=asked, after=after, limit=page)
            answer = self._call("ExportSuspects", request)
            yield from (_seen(one) for one in answer.suspects)
            after = answer.after
            if not after:
                return

    def erase(self, wanted: Filter = ALL, *, client_name: str | None = None) -> int:
        """Destroy these for good; how many there were. The filter must say something."""
        asked = suspectwire.write_filter(wanted, client_name=client_name)
        request = protocol.EraseSuspectsRequest(filter=asked)
        return int(self._call("EraseSuspects", request, timeout=LONG_SECONDS).erased)

    def rotate(self) -> int:
        """New keys, so that no backup opens what was erased; how many records they wrap."""
        request = protocol.RotateSuspectKeysRequest()
        return int(self._call("RotateSuspectKeys", request, timeout=LONG_SECONDS).wrapped)


def _rows(answer: Message) -> tuple[Row, ...]:
    return tuple(suspectwire.read_row(row) for row in answer.rows)


def _seen(message: Message) -> Seen:
    row = suspectwire.read_row(message.row)
    return Seen(row, suspectwire.read_suspect(row, message.suspect))
