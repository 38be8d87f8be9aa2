"""`guard.v1.Guard`: what operators ask of a gateway, where verdicts are shown in full."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import grpc

from guard.errors import UnknownModelError
from guard.gateway import codec, protocol
from guard.gateway.desk import Desk
from guard.gateway.guarded import GuardedModel
from guard.gateway.packcalls import PackCalls
from guard.gateway.promotion import Promotions
from guard.gateway.recorded import recorded
from guard.gateway.servicer import InferenceServicer, answered
from guard.gateway.status import NotExposedError
from guard.gateway.suspects import SuspectCalls
from guard.gateway.suspectwire import write_verdict
from guard.verdict import Decision


class GuardServicer:
    """Status and Inspect over the same models as `InferenceServicer`; suspects over a desk."""

    def __init__(
        self,
        inference: InferenceServicer,
        desk: Desk | None = None,
        promotions: Promotions | None = None,
    ) -> None:
        self._inference = inference
        self._suspects = SuspectCalls(inference, desk)
        self._packs = PackCalls(promotions)
        self._started = time.monotonic()

    def handler(self) -> grpc.GenericRpcHandler:
        """The service, ready for a server."""
        own = {"Status": recorded(self.status), "Inspect": recorded(self.inspect)}
        calls = own | self._suspects.calls() | self._packs.calls()
        behaviours = {name: answered(call) for name, call in calls.items()}
        return protocol.service_handler(
            protocol.GUARD_METHODS, behaviours, raw_requests=frozenset(behaviours)
        )

    async def status(self, data: bytes, _context: Any) -> protocol.Message:
        """What is guarded, with which pack, in which posture, and what was seen."""
        request = codec.parse(protocol.StatusRequest, data)
        models = self._shown()
        if request.model_name:
            models = {request.model_name: self._model(request.model_name)}
        return protocol.StatusResponse(
            version=self._inference.version,
            uptime_seconds=time.monotonic() - self._started,
            in_flight=self._inference.in_flight,
            models=[await _model_status(model) for model in models.values()],
        )

    async def inspect(self, data: bytes, context: Any) -> protocol.Message:
        """Verdicts on images, in full, without asking the upstream."""
        request = codec.parse(protocol.InspectRequest, data)
        model = self._model(request.model_name)
        with model.uses:
            return await self._inspected(model, request, context)

    async def _inspected(
        self, model: GuardedModel, request: protocol.Message, context: Any
    ) -> protocol.Message:
        shape = request.images.shape
        claimed = 1 if len(shape) in (0, 3) else shape[0]
        await self._inference.charge(context, min(claimed, model.model.max_images))
        images = codec.unpack_tensor(request.images, "images")
        upstream = None
        if request.HasField("upstream"):
            upstream = codec.unpack_tensor(request.upstream, "upstream")
        async with asyncio.timeout(self._inference.seconds(context)):
            verdicts = await model.inspect(images, upstream)
        classes = model.pipeline.classes
        return protocol.InspectResponse(
            model_name=model.name,
            pack_digest=model.pipeline.pack.digest,
            verdicts=[write_verdict(row, classes) for row in verdicts.rows()],
        )

    def _shown(self) -> Mapping[str, GuardedModel]:
        models = self._inference.models
        shown = {name: m for name, m in models.items() if m.policy.expose == "full"}
        if not shown:
            raise NotExposedError("no model here shows its verdicts in full")
        return shown

    def _model(self, name: str) -> GuardedModel:
        if name not in self._inference.models:
            raise UnknownModelError(f"no model {name[:100]!r} here")
        shown = self._shown()
        if name not in shown:
            raise NotExposedError(f"{name} does not show its verdicts in full")
        return shown[name]


async def _model_status(model: GuardedModel) -> protocol.Message:
    pipeline, policy = model.pipeline, model.policy
    tally = model.tally
    counts = {d.name.lower(): int(tally.decisions[d]) for d in Decision}
    return protocol.ModelStatus(
        name=model.name,
        ready=await model.ready(),
        pack=protocol.PackStatus(
            name=pipeline.pack.name,
            digest=pipeline.pack.digest,
            provider=pipeline.provider,
            classes=pipeline.classes,
            scores=model.score_names,
            input_shape=pipeline.input_shape,
        ),
        answer=model.model.answer,
        upstream=model.model.upstream,
        mode=policy.mode,
        on_flag=policy.on_flag,
        on_error=policy.on_error,
        expose=policy.expose,
        max_false_positive_rate=policy.max_false_positive_rate,
        requests=tally.requests,
        images=tally.images,
        verdicts=counts,
    )
