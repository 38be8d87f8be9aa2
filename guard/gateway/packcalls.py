"""The calls of `guard.v1.Guard` about packs: what travels, to and from the promotions."""

from collections.abc import Awaitable, Callable
from typing import Any

from guard.gateway import codec, protocol
from guard.gateway.identity import current
from guard.gateway.promotion import Listed, Promotions
from guard.gateway.protocol import Message
from guard.gateway.recorded import recorded
from guard.gateway.standing import Entry, Standing
from guard.gateway.status import NotOfferedError
from guard.verdict import Decision

Handled = Callable[[Any, Any], Awaitable[Any]]


class PackCalls:
    """The calls; the promotions record what was done."""

    def __init__(self, promotions: Promotions | None) -> None:
        self._promotions = promotions

    def calls(self) -> dict[str, Handled]:
        """Behaviours by name, from bytes."""
        return {
            "ListPacks": recorded(self.list_packs),
            "ShadowPack": self.shadow_pack,
            "PromotePack": self.promote_pack,
            "RollbackPack": self.rollback_pack,
        }

    async def list_packs(self, data: bytes, _context: Any) -> Message:
        """How things stand, and what could follow."""
        request = codec.parse(protocol.ListPacksRequest, data)
        found = await self._open().listed(request.model_name)
        return protocol.ListPacksResponse(models=[_write_listed(each) for each in found])

    async def shadow_pack(self, data: bytes, _context: Any) -> Message:
        """A candidate beside what serves."""
        request = codec.parse(protocol.ShadowPackRequest, data)
        found = await self._open().shadow(current(), request.model_name, request.pack)
        return write_standing(*found)

    async def promote_pack(self, data: bytes, _context: Any) -> Message:
        """A candidate in front."""
        request = codec.parse(protocol.PromotePackRequest, data)
        found = await self._open().promote(current(), request.model_name, request.pack)
        return write_standing(*found)

    async def rollback_pack(self, data: bytes, _context: Any) -> Message:
        """The one before in front again."""
        request = codec.parse(protocol.RollbackPackRequest, data)
        return write_standing(*await self._open().roll_back(current(), request.model_name))

    def _open(self) -> Promotions:
        if self._promotions is None:
            raise NotOfferedError("no packs are promoted here")
        return self._promotions


def write_standing(model: str, standing: Standing) -> Message:
    """How it stands with a model, on the wire."""
    return protocol.PackStanding(
        model_name=model,
        current=_write(standing.current),
        before=[_write(entry) for entry in standing.before],
        shadow=_write(standing.shadow) if standing.shadow else None,
    )


def _write_listed(listed: Listed) -> Message:
    message = write_standing(listed.model, listed.standing)
    for name, pack, problem in listed.offered:
        digest, serial = (pack.digest, pack.serial) if pack else ("", 0)
        message.candidates.add(pack=name, digest=digest, serial=serial, problem=problem)
    for (ours, its), images in listed.counts.items():
        pair = {"current": Decision(ours).name, "candidate": Decision(its).name}
        message.shadow_counts.add(**pair, images=images)
    return message


def _write(entry: Entry) -> Message:
    return protocol.ServingPack(
        pack=entry.pack,
        digest=entry.digest,
        serial=entry.serial,
        submitted_by=entry.submitted_by,
        approved_by=entry.approved_by,
        at=entry.at,
    )
