"""Changing a model's pack while it serves: watch a candidate in shadow, promote it, roll back.

The next pack is read, verified and made ready while the old one answers. Then one assignment puts
it in the old one's place: whoever asks from then on asks the new one, whoever asked before is
answered by the old one, which is put away after its last answer. So no answer mixes packs.

What is to be is durable (audit log, then `gateway.state`) before it takes effect. A change that has
begun goes on to its end, whether or not its caller waits for it.
"""

import asyncio
import gc
import logging
import time
from collections.abc import Coroutine, MutableMapping
from typing import Any, Literal, NamedTuple, TypeVar

from guard import metrics
from guard.config import Model
from guard.errors import GuardError, PackError
from guard.gateway.audit.recorder import Audit
from guard.gateway.candidates import check_graph, check_thresholds
from guard.gateway.guarded import GuardedModel
from guard.gateway.identity import Identity
from guard.gateway.loading import Loading, Offer
from guard.gateway.recorded import REFUSALS
from guard.gateway.shadow import Shadow
from guard.gateway.standing import Entry, Standing
from guard.gateway.status import ForbiddenError, NotOfferedError, code_of
from guard.metrics import Promotion
from guard.pack import Pack
from guard.pipeline import Pipeline
from guard.proberun import probe_once

Change = Literal["model.shadow", "model.promote", "model.rollback"]
OUTCOMES: dict[Change, Promotion] = {
    "model.shadow": "shadowed",
    "model.promote": "promoted",
    "model.rollback": "rolled_back",
}
T = TypeVar("T")
log = logging.getLogger(__name__)


class Listed(NamedTuple):
    """How things stand with one model; counts: by what it and its shadow decided."""

    model: str
    standing: Standing
    offered: list[Offer]
    counts: dict[tuple[int, int], int]


class Promotions:
    """Over the models of one gateway, one change at a time."""

    def __init__(
        self,
        loading: Loading,
        models: MutableMapping[str, GuardedModel],
        audit: Audit,
    ) -> None:
        self._loading, self._packs = loading, loading.packs
        self._models, self._audit = models, audit
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def promote(self, who: Identity, name: str, pack: str) -> tuple[str, Standing]:
        """Let a candidate serve; the model's name and how it stands then."""
        model = self._model(who, name)
        return await self._done(self._promote(who, model, pack), who, model, "model.promote")

    async def roll_back(self, who: Identity, name: str) -> tuple[str, Standing]:
        """Let the pack before serve again."""
        model = self._model(who, name)
        return await self._done(self._roll_back(who, model), who, model, "model.rollback")

    async def shadow(self, who: Identity, name: str, pack: str) -> tuple[str, Standing]:
        """Let a candidate score live traffic and decide nothing; "": no longer."""
        model = self._model(who, name)
        change = self._shadow(who, model, pack)
        return await self._done(change, who, model, "model.shadow")

    async def listed(self, name: str) -> list[Listed]:
        """How things stand with a model, or with all of them, and what could follow."""
        names = [name] if name else [*self._models]
        return [await self._listed(self._packs.model(one)) for one in names]

    async def start(self, model: Model) -> None:
        """Watch what was watched before a restart, or what the settings name."""
        if not self._packs.promotable:
            return
        entry = (await self.standing(model)).shadow
        name = entry.pack if entry else model.shadow
        if not name or name == (await self.standing(model)).current.pack:
            return
        try:
            pack = await asyncio.to_thread(self._packs.candidate, model, name)
            if entry and entry.digest != pack.digest:
                raise PackError(f"{name} was changed since it was submitted")
            check_graph(pack, self._models[model.name].pipeline.pack)
            await self._watch(model, await self._ready(model, pack))
        except PackError as error:  # it decides nothing, so nothing has to wait for it
            log.warning("%s: no pack in shadow: %s", model.name, error)

    async def close(self) -> None:
        """Let changes and farewells that are under way end."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    # ── the steps ────────────────────────────────────────────────────────────────────────────────

    async def _promote(self, who: Identity, model: Model, name: str) -> Standing:
        standing = await self.standing(model)
        pack = await asyncio.to_thread(self._packs.candidate, model, name)
        submitter = _submitter(who, standing, name, pack)
        self._packs.check(model, pack, self._models[model.name].pipeline.pack)
        pipeline = await self._ready(model, pack)
        entry = Entry(name, pack.digest, pack.serial, submitter, who.name, time.time())
        return await self._follow(model, pipeline, standing.promoted(entry), who, "model.promote")

    async def _roll_back(self, who: Identity, model: Model) -> Standing:
        standing = (await self.standing(model)).rolled_back()
        pack = await asyncio.to_thread(self._packs.load, model, standing.current)
        check_graph(pack, self._models[model.name].pipeline.pack)
        old = self._models[model.name]
        pipeline = await asyncio.to_thread(self._loading.ready, old, pack)
        return await self._follow(model, pipeline, standing, who, "model.rollback")

    async def _shadow(self, who: Identity, model: Model, name: str) -> Standing:
        standing = await self.standing(model)
        entry = pack = None
        if name:
            pack = await asyncio.to_thread(self._packs.candidate, model, name)
            check_graph(pack, self._models[model.name].pipeline.pack)
            entry = Entry(name, pack.digest, pack.serial, who.name, "", time.time())
        pipeline = await self._ready(model, pack) if pack else None
        digest = entry.digest if entry else ""
        await self._durable(who, "model.shadow", model, standing.shadowed(entry), digest)
        await self._watch(model, pipeline)
        return standing.shadowed(entry)

    async def _ready(self, model: Model, pack: Pack) -> Pipeline:
        """A candidate made ready: it ran elsewhere, its thresholds are for what it will see."""
        here = self._models[model.name]
        await asyncio.to_thread(probe_once, pack)
        pipeline = await asyncio.to_thread(self._loading.ready, here, pack)
        check_thresholds(pipeline, here.pipeline)
        return pipeline

    async def _watch(self, model: Model, pipeline: Pipeline | None) -> None:
        """This one beside the pack that serves, None: none."""
        here = self._models[model.name]
        shadow = Shadow(model.name, pipeline, here.policy) if pipeline else None
        old, here.shadow = here.shadow, shadow
        labels = (shadow.pack.name, shadow.pack.digest) if shadow else ()
        metrics.shadowing(model.name, *labels)
        if old is not None:
            await asyncio.to_thread(old.close)

    async def _follow(
        self, model: Model, pipeline: Pipeline, standing: Standing, who: Identity, event: str
    ) -> Standing:
        """Put a pack that is ready in the place of the one that serves."""
        old, pack = self._models[model.name], pipeline.pack
        new = self._loading.next(old, pipeline)
        try:
            await self._durable(who, event, model, standing, pack.digest)
        except GuardError:
            await new.retire()
            raise
        self._models[model.name] = new
        self._begin(_farewell(old))
        metrics.serving(model.name, pack.name, pack.digest, pack.serial)
        metrics.shadowing(model.name)
        return standing

    async def _durable(
        self, who: Identity, event: str, model: Model, standing: Standing, digest: str
    ) -> None:
        """On record, then in the state, before it takes effect."""
        serves = self._models[model.name].pipeline.pack.digest
        details = {"model": model.name, "digest": digest, "instead_of": serves}
        await self._audit.act(event, actor=who.name, **details)
        await asyncio.to_thread(self._packs.standings.write, model.name, standing)

    async def _listed(self, model: Model) -> Listed:
        here = self._models[model.name]
        standing = await self.standing(model)
        found = await asyncio.to_thread(self._packs.offered, model, here.pipeline.pack)
        return Listed(model.name, standing, found, here.shadow.counts if here.shadow else {})

    async def standing(self, model: Model) -> Standing:
        """How it stands with a model: what the state says, where that is about what serves."""
        known = await asyncio.to_thread(self._packs.known, model)
        pack = self._models[model.name].pipeline.pack
        if known is not None and known.current.digest == pack.digest:
            return known
        return Standing(Entry("", pack.digest, pack.serial))

    # ── around them ──────────────────────────────────────────────────────────────────────────────

    def _model(self, who: Identity, name: str) -> Model:
        if not self._packs.promotable:
            raise NotOfferedError("no packs are promoted here (gateway.packs)")
        if who.scope:
            raise ForbiddenError("packs guard all tenants together")
        return self._packs.model(name)

    async def _done(
        self, change: Coroutine[Any, Any, Standing], who: Identity, model: Model, event: Change
    ) -> tuple[str, Standing]:
        """One change, once it is its turn, counted and on record however it ends."""

        async def changing() -> Standing:
            outcome: Promotion = "refused"
            try:
                async with self._turn:
                    standing = await change
                outcome = OUTCOMES[event]
            except Exception as error:
                if (code := code_of(error)) not in REFUSALS:
                    self._audit.record(event, actor=who.name, outcome=code.name, model=model.name)
                raise
            finally:
                metrics.PROMOTIONS.labels(model.name, outcome).inc()
            return standing

        return model.name, await asyncio.shield(self._begin(changing()))

    def _begin(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _farewell(old: GuardedModel) -> None:
    """Put away what served, and give its memory back: it is many megabytes, held in circles."""
    await old.retire()
    del old
    await asyncio.to_thread(gc.collect)


def _submitter(who: Identity, standing: Standing, name: str, pack: Pack) -> str:
    """Who submitted a candidate; nobody who is known approves what is theirs, or nobody's."""
    submitted = standing.shadow
    if submitted is None or submitted.pack != name:
        if who.kind == "anonymous":
            return who.name
        raise PackError(f"{name} was not submitted: a trainer has it watched first")
    if submitted.digest != pack.digest:
        raise PackError(f"{name} was changed since it was submitted")
    if who.kind != "anonymous" and submitted.submitted_by == who.name:
        raise ForbiddenError("whoever submitted a pack does not approve it")
    return submitted.submitted_by
