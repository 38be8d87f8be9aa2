"""One guarded model: the path of a request from a checked message to an answer.

decode ─► evidence (batched, in a worker) beside the upstream call ─► judge ─► decide ─► encode.
Whatever cannot be examined does not pass, unless the policy says `on_error = "allow"`; a number
that is not finite passes under no policy. Letters: N images, K classes, D scores.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from guard import metrics
from guard.config import Gateway, Model
from guard.errors import (
    GuardError,
    NumericError,
    OverloadedError,
    UnknownModelError,
    UpstreamError,
)
from guard.gateway import answers, blunt, codec, ensemble, protocol
from guard.gateway.admission import Admission
from guard.gateway.answers import OutputSpec, UnmaskableError
from guard.gateway.batcher import Batcher
from guard.gateway.catch import Catch
from guard.gateway.examined import Examined, abandon, evidence_of, expire
from guard.gateway.identity import current
from guard.gateway.intake import SHOWN, Intake
from guard.gateway.judge import Judge
from guard.gateway.mapping import AnswerReader
from guard.gateway.sequences import Sequences
from guard.gateway.shadow import Shadow
from guard.gateway.shifting import Shifting
from guard.gateway.status import (
    AdversarialInputError,
    DefenseError,
    LateDefenseError,
    new_id,
)
from guard.gateway.tally import Tally
from guard.gateway.upstream import Metadata, Question, Reply, Upstream
from guard.gateway.uses import Uses
from guard.pipeline import Evidence, Pipeline
from guard.verdict import Decision, Policy, Verdicts

Floats = NDArray[np.float32]
Rows = NDArray[np.bool_]

READY_SECONDS = 0.5  # how long an upstream's readiness is believed

log = logging.getLogger(__name__)


class Served(NamedTuple):
    """An answer, and the upstream's metadata that goes with it."""

    response: protocol.Message
    leading: Metadata = ()
    trailing: Metadata = ()


class GuardedModel:
    """A model that clients know by `name`, its defence, and the upstream where it has one."""

    def __init__(
        self, model: Model, policy: Policy, pipeline: Pipeline, upstream: Upstream | None,
        gateway: Gateway, catch: Catch | None = None, sequences: Sequences | None = None,
        shifting: Shifting | None = None,
    ) -> None:  # fmt: skip
        self._sequences, self._shifting = sequences, shifting
        self.name, self.model, self.policy, self._catch = model.name, model, policy, catch
        self.pipeline, self.upstream = pipeline, upstream
        self.score_names = pipeline.score_names(upstream=upstream is not None)
        both = (*self.score_names, *pipeline.score_names(upstream=False))
        self.metrics = metrics.ModelMetrics(model.name, dict.fromkeys(both))
        # Where the ensemble answers the upstream is one more witness, and may be missing.
        self._does_without = model.answer == "ensemble" and policy.on_error == "allow"
        self.uses, self.tally = Uses(), Tally()
        self.shadow: Shadow | None = None
        self._tells_pack = policy.expose == "full" and bool(gateway.packs)
        self._uncounted: list[Verdicts] = []
        self.admission = Admission(gateway.limits.max_wait)
        self._intake = Intake(model, policy, pipeline.input_shape)
        self._reader = AnswerReader(model.output, pipeline.pack)
        self._judge = Judge(self._judgement)
        self._ready = (0.0, False)  # when asked, what it said
        self._batcher: Batcher[Examined] = Batcher(
            self._examine,
            Examined.part,
            max_batch=gateway.max_batch,
            max_queue=gateway.max_queue,
            name=f"evidence-{model.name}",
            waited=lambda seconds: self.metrics.stage("queue", seconds),
            depth=self.metrics.queue.set,
        )

    async def infer(
        self, request: protocol.Message, data: bytes, *, timeout: float, metadata: Metadata = ()
    ) -> Served:
        """Answer a ModelInferRequest, which arrived as `data`, within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        self._intake.admit(request, data)
        wanted = self._wanted(request)
        plan = await self._plan(request)
        start = time.perf_counter()
        pixels = await self._intake.pixels(request)
        self.metrics.stage("decode", time.perf_counter() - start)
        drawn = self._catch.draw(len(pixels)) if self._catch else None
        watching = self._sequences.begin(pixels) if self._sequences else None
        examined = self._batcher.submit(pixels)
        late = asyncio.get_running_loop().call_later(self.model.evidence_timeout, expire, examined)
        try:
            reply, answer, spec = None, None, None
            if plan is not None and self.upstream is not None:
                left = min(deadline - time.monotonic(), self.model.upstream_timeout)
                unchanged = data if plan.forward is request else None
                question = Question(plan.forward, unchanged, pixels, left, metadata)
                try:
                    reply, answer, spec = await self._ask(self.upstream, question)
                except UpstreamError:
                    if not self._does_without:
                        raise
            verdicts = await self._verdicts(examined, answer, len(pixels))
        finally:
            late.cancel()
            abandon(examined)
        if self.shadow is not None:
            self.shadow.take(evidence_of(examined), answer, verdicts)
        if self._shifting is not None:
            self._shifting.take(pixels, verdicts)
        if self._sequences is not None and watching is not None:
            verdicts = await self._sequences.settle(watching, verdicts)
        start = time.perf_counter()
        self._count_later(verdicts)
        suspects: Sequence[str] = ()
        if self._catch is not None and drawn is not None:
            seen = evidence_of(examined)
            suspects = await self._catch.take(pixels, drawn, seen, verdicts, answer, metadata)
        served = self._encode(request, verdicts, wanted, plan, reply, spec, suspects)
        self.metrics.stage("encode", time.perf_counter() - start)
        return served

    def count(self, request: protocol.Message) -> int:
        """The images that a request claims to carry, as far as it may."""
        return min(self._intake.count(request), self.model.max_images)

    async def inspect(self, images: Any, upstream: Any = None) -> Verdicts:
        """Verdicts alone, on images as this model's clients send them; no upstream is asked."""
        examined = await self._batcher.submit(await self._intake.convert(images))
        if examined.verdicts is not None and upstream is None:
            return examined.verdicts
        return self.pipeline.judge(examined.evidence, upstream, self.policy)

    @property
    def stuck(self) -> bool:
        """Whether a run of the defence, or of an upstream in this process, hangs for good."""
        upstream = self.upstream is not None and self.upstream.stuck
        return upstream or self._batcher.busy_for > 2 * self.model.evidence_timeout

    async def ready(self) -> bool:
        """Whether a request would be answered now."""
        if self.stuck:
            return False
        if self.upstream is None:
            return True
        asked, said = self._ready
        if time.monotonic() - asked > READY_SECONDS:
            said = await self.upstream.ready()
            self._ready = (time.monotonic(), said)
        return said

    async def metadata(self) -> protocol.Message:
        """The model's ModelMetadataResponse: the upstream's, with the guard outputs that show."""
        if self.upstream is not None and self.model.answer == "upstream":
            about = await self.upstream.metadata()
            about.name = self.name
        else:
            about = ensemble.metadata(self.name, self.model.input, self.pipeline.pack)
        kinds = {"guard_decision": "INT32", "guard_p_value": "FP32", "guard_scores": "FP32"}
        for name in SHOWN[self.policy.expose]:
            shape = [-1, len(self.score_names)] if name == "guard_scores" else [-1]
            about.outputs.add(name=name, datatype=kinds[name], shape=shape)
        return about

    def behind(
        self, pipeline: Pipeline, gateway: Gateway, catch: Catch | None, shifting: Shifting | None
    ) -> "GuardedModel":
        """The same model behind another pack; what is not the pack's is shared with this one."""
        upstream, watch = self.upstream, self._sequences
        new = GuardedModel(
            self.model, self.policy, pipeline, upstream, gateway, catch, watch, shifting
        )
        new.tally, new.admission = self.tally, self.admission
        return new

    async def retire(self) -> None:
        """Once another took its place: let the last request go, then what is this one's own."""
        await self.uses.over()
        await self._batcher.close()
        self._intake.close()
        if self.shadow is not None:
            await asyncio.to_thread(self.shadow.close)
        if self._shifting is not None:
            self._shifting.close()

    async def close(self) -> None:
        """Finish what is queued, then let go of threads and connections."""
        await self.retire()
        if self._sequences is not None:
            self._sequences.close()
        if self.upstream is not None:
            await self.upstream.close()

    # ── before the defence ───────────────────────────────────────────────────────────────────────

    def _wanted(self, request: protocol.Message) -> tuple[str, ...]:
        """The outputs to answer where the ensemble does."""
        if self.model.answer == "upstream":
            return ()
        if self.upstream is None and request.model_version not in ("", ensemble.VERSION):
            raise UnknownModelError(
                f"{self.name} has version 1, not {request.model_version[:32]!r}"
            )
        return codec.wanted_outputs(request, ensemble.OUTPUTS)

    async def _plan(self, request: protocol.Message) -> codec.Plan | None:
        """What the upstream is asked, None where there is none."""
        if self.upstream is None:
            return None
        if not self._reader.tensor:
            about = await self.upstream.metadata()
            if about.outputs:
                self._reader.tensor = about.outputs[0].name
            elif any(output.name not in codec.GUARD_OUTPUTS for output in request.outputs):
                raise UpstreamError("the upstream declares no output: set output.tensor")
        mapped, name = self._reader.tensor, self.model.upstream_model
        if self.model.answer == "ensemble":
            question = protocol.ModelInferRequest()
            question.CopyFrom(request)
            del question.outputs[:]
            if mapped:
                question.outputs.add(name=mapped)
            question.model_name = name or self.name
            return codec.Plan(question, codec.is_raw(request))
        return codec.plan_request(request, mapped=mapped, model_name=name)

    # ── the defence and the upstream ─────────────────────────────────────────────────────────────

    def _examine(self, pixels: Floats) -> Examined:
        """In the worker, for a whole batch: evidence, and verdicts where they need no upstream."""
        start = time.perf_counter()
        evidence = self.pipeline.evidence(pixels)
        self.metrics.stage("evidence", time.perf_counter() - start)
        verdicts = self._judgement(evidence, None) if self.upstream is None else None
        return Examined(evidence, verdicts)

    def _judgement(self, evidence: Evidence, answer: Floats | None) -> Verdicts:
        start = time.perf_counter()
        verdicts = self.pipeline.judge(evidence, answer, self.policy)
        self.metrics.stage("detect", time.perf_counter() - start)
        return verdicts

    async def _ask(
        self, upstream: Upstream, question: Question
    ) -> tuple[Reply, Floats, OutputSpec]:
        """The upstream's reply, and its class probabilities (N, K)."""
        start = time.perf_counter()
        try:
            reply = await upstream.infer(question)
            answers.check_response(reply.response)
            answer, spec = self._reader.read(reply.response, len(question.pixels))
        except UpstreamError as error:
            metrics.UPSTREAM_ERRORS.labels(self.name, error.code or "MALFORMED").inc()
            raise
        finally:
            self.metrics.stage("upstream", time.perf_counter() - start)
        return reply, answer, spec

    async def _verdicts(
        self, examined: "asyncio.Future[Examined]", answer: Floats | None, count: int
    ) -> Verdicts:
        """Verdicts on `count` images; a fault of the defence is what `on_error` decides about."""
        try:
            seen = await examined
            if seen.verdicts is not None:
                return seen.verdicts
            if answer is None:
                return self._judgement(seen.evidence, None)
            return await self._judge(seen.evidence, answer)
        except (OverloadedError, NumericError):
            raise
        except Exception as error:
            return self._unexamined(error, answer, count)

    def _unexamined(self, error: Exception, answer: Floats | None, count: int) -> Verdicts:
        """ABSTAIN for every image the upstream answered with finite numbers, if that is allowed."""
        log.error("%s: the defence failed", self.name, exc_info=error)
        if self.policy.on_error != "allow" or self.model.answer == "ensemble" or answer is None:
            if isinstance(error, DefenseError):
                raise error
            raise DefenseError(f"{self.name}: the defence failed") from error
        metrics.error("defense_late" if isinstance(error, LateDefenseError) else "defense", count)
        finite = np.isfinite(answer).all(axis=1)
        self.metrics.unexamined(int(finite.sum()))
        nothing = np.full((count, len(self.score_names)), np.nan, np.float32)
        return Verdicts(
            decisions=np.where(finite, Decision.ABSTAIN, Decision.ERROR).astype(np.int32),
            p_values=nothing[:, -1],
            labels=np.nan_to_num(answer, nan=-1.0).argmax(axis=1).astype(np.int64),
            probabilities=np.full_like(answer, np.nan),
            scores=nothing,
            score_p_values=nothing,
            score_names=self.score_names,
            substituted=np.zeros(count, np.bool_),
        )

    # ── the answer ───────────────────────────────────────────────────────────────────────────────

    def _encode(
        self,
        request: protocol.Message,
        verdicts: Verdicts,
        wanted: tuple[str, ...],
        plan: codec.Plan | None,
        reply: Reply | None,
        spec: OutputSpec | None,
        suspects: Sequence[str],
    ) -> Served:
        """The answer with blocked and broken rows taken out; an error where no row is left."""
        stopped = (verdicts.decisions == Decision.BLOCK) | (verdicts.decisions == Decision.ERROR)
        if stopped.all():
            raise self._refusal(verdicts, suspects)
        harden = blunt.applying(self.model.output.harden, current())
        shown = self.policy.expose != "none"
        parameters = codec.guard_parameters(verdicts, suspects) if shown else {}
        if self._tells_pack:
            parameters["guard_pack"] = self.pipeline.pack.digest
        if plan is None or reply is None or spec is None or self.model.answer == "ensemble":
            outputs = {name: ensemble.output(name, verdicts, stopped) for name in wanted}
            if harden is not None and "probabilities" in outputs:
                told = blunt.blunt(harden, outputs["probabilities"])
                outputs["probabilities"] = told.astype(np.float32)
            response = codec.build_response(
                request, outputs, parameters=parameters, model_version=ensemble.VERSION
            )
            return Served(response)
        response = reply.response
        try:
            answers.substitute_rows(response, spec, verdicts.substituted, verdicts.probabilities)
            answers.mask_rows(response, stopped)
        except UnmaskableError as error:
            raise self._refusal(verdicts, suspects) from error
        if harden is not None:
            blunt.blunt_response(harden, response, spec)
        outputs = codec.guard_outputs(verdicts, plan.guard_outputs)
        answers.finish_response(
            response, plan, outputs=outputs, parameters=parameters, model_name=self.name
        )
        return Served(response, reply.leading, reply.trailing)

    def _refusal(self, verdicts: Verdicts, suspects: Sequence[str]) -> GuardError:
        """Why there is no answer at all."""
        if (verdicts.decisions == Decision.BLOCK).any() or verdicts.substituted.any():
            case = new_id()
            log.info("%s: request %s refused as adversarial", self.name, case)
            return AdversarialInputError("the input looks adversarial", id=case, suspects=suspects)
        return NumericError(f"{self.name}: a number on the way to the answer is not finite")

    def _count_later(self, verdicts: Verdicts) -> None:
        """Counting cannot fail a request, and is done once for all that share this loop's turn."""
        self._uncounted.append(verdicts)
        if len(self._uncounted) == 1:
            asyncio.get_running_loop().call_soon(self._count)

    def _count(self) -> None:
        verdicts = metrics.merged(self._uncounted)
        self._uncounted = []
        self.tally.add(verdicts.decisions)
        self.metrics.observe(verdicts, self.policy.max_false_positive_rate)
