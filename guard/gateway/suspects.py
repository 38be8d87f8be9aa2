"""The calls of `guard.v1.Guard` about suspects: what travels, to and from the desk."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from guard.gateway import codec, protocol
from guard.gateway.desk import Desk
from guard.gateway.identity import current
from guard.gateway.protocol import Message
from guard.gateway.recorded import recorded
from guard.gateway.servicer import InferenceServicer
from guard.gateway.status import NotExposedError, NotOfferedError
from guard.gateway.suspectwire import (
    ORDERS,
    known,
    label_of,
    read_filter,
    write_counts,
    write_row,
    write_rows,
    write_suspect,
)
from guard.suspects.record import Filter

Handled = Callable[[Any, Any], Awaitable[Any]]
ROWS, EXPORTED = 50, 100  # where the caller leaves it open


class SuspectCalls:
    """The calls, over one desk; without one all of them say that nothing is kept here."""

    def __init__(self, inference: InferenceServicer, desk: Desk | None) -> None:
        self._inference, self._desk = inference, desk

    def calls(self) -> dict[str, Handled]:
        """Behaviours by name, from bytes; the desk records what was done."""
        return {
            "ListSuspects": self.list_suspects,
            "GetSuspect": self.get_suspect,
            "CountSuspects": recorded(self.count_suspects),
            "ClaimSuspects": self.claim_suspects,
            "LabelSuspects": self.label_suspects,
            "UndoLabel": self.undo_label,
            "SubmitFeedback": self.submit_feedback,
            "ExportSuspects": self.export_suspects,
            "EraseSuspects": self.erase_suspects,
            "RotateSuspectKeys": self.rotate_suspect_keys,
        }

    async def list_suspects(self, data: bytes, _context: Any) -> Message:
        """A page of rows."""
        request = codec.parse(protocol.ListSuspectsRequest, data)
        page = await self._showing().rows(
            current(),
            await self._filter(request),
            order=known(ORDERS, request.order, "order"),
            after=request.after or None,
            limit=request.limit or ROWS,
        )
        rows = write_rows(page.rows)
        return protocol.ListSuspectsResponse(rows=rows, after=page.after or "")

    async def get_suspect(self, data: bytes, _context: Any) -> Message:
        """One, its picture and those that look like it where that is asked for."""
        request = codec.parse(protocol.GetSuspectRequest, data)
        desk, who = self._showing(), current()
        if request.picture:
            row, suspect = await desk.view(who, request.id)
            full = write_suspect(suspect, self._classes(row.model, row.pack))
        else:
            row, full = await desk.row(who, request.id), None
        alike = await desk.similar(who, request.id, request.similar) if request.similar else ()
        return protocol.GetSuspectResponse(
            row=write_row(row), suspect=full, similar=write_rows(alike)
        )

    async def count_suspects(self, data: bytes, _context: Any) -> Message:
        """How many."""
        request = codec.parse(protocol.CountSuspectsRequest, data)
        return write_counts(await self._open().counts(current(), await self._filter(request)))

    async def claim_suspects(self, data: bytes, _context: Any) -> Message:
        """Open ones for this reviewer."""
        request = codec.parse(protocol.ClaimSuspectsRequest, data)
        wanted, limit = await self._filter(request), request.limit or 1
        rows = await self._showing().claim(current(), wanted, limit=limit)
        return protocol.ClaimSuspectsResponse(rows=write_rows(rows))

    async def label_suspects(self, data: bytes, _context: Any) -> Message:
        """A reviewer's word."""
        request = codec.parse(protocol.LabelSuspectsRequest, data)
        rows = await self._showing().label(current(), request.ids, label_of(request.label))
        return protocol.LabelSuspectsResponse(rows=write_rows(rows))

    async def undo_label(self, data: bytes, _context: Any) -> Message:
        """The reviewer's last word taken back."""
        codec.parse(protocol.UndoLabelRequest, data)
        return protocol.UndoLabelResponse(rows=write_rows(await self._showing().undo(current())))

    async def submit_feedback(self, data: bytes, context: Any) -> Message:
        """A client's word; counts as one image of what it may send."""
        request = codec.parse(protocol.SubmitFeedbackRequest, data)
        desk = self._open()
        await self._inference.charge(context)
        await desk.feedback(current(), request.id, label_of(request.label))
        return protocol.SubmitFeedbackResponse()

    async def export_suspects(self, data: bytes, _context: Any) -> Message:
        """A page of them in full."""
        request = codec.parse(protocol.ExportSuspectsRequest, data)
        wanted, limit = await self._filter(request), request.limit or EXPORTED
        page = await self._showing().export(
            current(), wanted, after=request.after or None, limit=limit
        )
        exported = [
            protocol.ExportedSuspect(
                row=write_row(row),
                suspect=write_suspect(suspect, self._classes(row.model, row.pack)),
            )
            for row, suspect in page.views
        ]
        return protocol.ExportSuspectsResponse(suspects=exported, after=page.after or "")

    async def erase_suspects(self, data: bytes, _context: Any) -> Message:
        """Gone for good."""
        request = codec.parse(protocol.EraseSuspectsRequest, data)
        erased = await self._open().erase(current(), await self._filter(request))
        return protocol.EraseSuspectsResponse(erased=erased)

    async def rotate_suspect_keys(self, data: bytes, _context: Any) -> Message:
        """New keys."""
        codec.parse(protocol.RotateSuspectKeysRequest, data)
        return protocol.RotateSuspectKeysResponse(wrapped=await self._open().rotate(current()))

    def _open(self) -> Desk:
        if self._desk is None:
            raise NotOfferedError("no suspects are kept here")
        return self._desk

    def _showing(self) -> Desk:
        """The desk, for what shows verdicts: to everybody only where policies show them, too."""
        desk, models = self._open(), self._inference.models.values()
        hidden = [model.name for model in models if model.policy.expose != "full"]
        if hidden and current().kind == "anonymous":
            raise NotExposedError(
                f"{hidden[0]} does not show its verdicts in full, and nobody is known here:"
                " suspects need identities"
            )
        return desk

    async def _filter(self, request: Message) -> Filter:
        asked, client = request.filter, None
        if asked.HasField("client_name"):
            client = await self._open().pseudonym(asked.client_name)
        return read_filter(asked, client)

    def _classes(self, model: str, digest: str) -> Sequence[str]:
        """The class names of a pack, where it still is the model's, or what that learned from."""
        here = self._inference.models.get(model)
        if here is None or digest not in (here.pipeline.pack.digest, *here.pipeline.pack.lineage):
            return ()
        return here.pipeline.classes
