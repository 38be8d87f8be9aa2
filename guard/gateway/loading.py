"""How the models of a gateway come to be: at the start, and when another pack follows."""

from pathlib import Path
from typing import NamedTuple

from guard import calibration, metrics
from guard.config import Config, Gateway, Model
from guard.errors import ConfigError, PackError, UnknownModelError
from guard.gateway.candidates import Candidates, check_candidate
from guard.gateway.catch import Catch
from guard.gateway.embedded import OnnxUpstream
from guard.gateway.guarded import GuardedModel
from guard.gateway.keeping import Kept
from guard.gateway.sequences import sequences_of
from guard.gateway.shifting import shifting_of
from guard.gateway.standing import Entry, Standing, Standings
from guard.gateway.upstream import GrpcUpstream, Upstream
from guard.pack import Pack
from guard.pipeline import Pipeline
from guard.signing.trust import Trust


class Offer(NamedTuple):
    """A pack that lies in the folder; `pack` None: it cannot even be read."""

    name: str
    pack: Pack | None
    problem: str  # why it cannot be promoted now; "" where it can


class Packs:
    """Which pack guards which model, by the settings and what was promoted since.

    Reads and verifies packs; whether a gateway may promote any, `promotable` says.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        gateway = config.gateway
        self.promotable = bool(gateway.packs)
        self.candidates = Candidates(gateway.packs)
        self.standings = Standings(gateway.state)
        self._trust = Trust.read(gateway.trust) if gateway.trust else None

    def model(self, name: str) -> Model:
        """The settings of a model; "": of the only one. Raises UnknownModelError."""
        models = self._config.models
        for model in models:
            if name == model.name or (not name and len(models) == 1):
                return model
        raise UnknownModelError(f"no model {name[:100]!r} here" if name else "say which model")

    def known(self, model: Model) -> Standing | None:
        """What the state says of this model, None where it says nothing. Raises PackError."""
        return self.standings.read(model.name) if self.promotable else None

    def promoted(self, model: Model) -> Standing | None:
        """What was promoted for this model, None where the settings' own pack serves."""
        standing = self.known(model)
        return standing if standing and standing.current.pack else None

    def serving(self, model: Model) -> Pack:
        """The pack that guards it. Raises PackError."""
        standing = self.promoted(model)
        return self.load(model, standing.current) if standing else self.own(model)

    def own(self, model: Model) -> Pack:
        """The pack that the settings name. Raises PackError."""
        return Pack.load(model.pack, trust=self._trust, min_serial=model.min_serial)

    def candidate(self, model: Model, name: str) -> Pack:
        """A pack of the folder, where it is not too old. Raises PackError."""
        return self.candidates.load(name, trust=self._trust, min_serial=model.min_serial)

    def offered(self, model: Model, current: Pack) -> list[Offer]:
        """What lies in the folder, and whether it may follow the pack that serves."""
        found = []
        for name in self.candidates.names() if self.promotable else ():
            pack, problem = None, ""
            try:
                pack = self.candidate(model, name)
                self.check(model, pack, current)
            except PackError as error:
                problem = str(error)
            found.append(Offer(name, pack, problem))
        return found

    def check(self, model: Model, pack: Pack, current: Pack) -> None:
        """Raise PackError unless a candidate may follow the pack that guards a model."""
        heads = {"upstream" if model.upstream else "alone"}
        if model.answer == "ensemble" and model.on_error == "allow":
            heads.add("alone")  # decides where the upstream does not answer
        check_candidate(pack, current, heads)

    def load(self, model: Model, entry: Entry) -> Pack:
        """The pack of an entry, which must still be the one that was approved."""
        pack = self.candidate(model, entry.pack) if entry.pack else self.own(model)
        if pack.digest != entry.digest:
            raise PackError(
                f"{entry.pack or model.pack} is {pack.digest[:19]}, and gateway.state says that"
                f" {entry.digest[:19]} was approved"
            )
        return pack

    def of(self, model: Model, digest: str) -> Pack:
        """The pack that had this digest, where it is still here; else the one that serves."""
        serving = self.serving(model)
        if serving.digest == digest or not self.promotable:
            return serving
        offers = [offer.pack for offer in self.offered(model, serving)]
        there = [pack for pack in (*offers, self.own(model)) if pack and pack.digest == digest]
        return there[0] if there else serving

    def pipeline(
        self,
        model: Model,
        pack: Pack,
        secret: bytes | None,
        *,
        like: Pipeline | None = None,
        calibrated: bool = True,
    ) -> Pipeline:
        """A pack made ready, with the calibration that the settings name where it is for it.

        like: a pipeline whose graph it may share. calibrated False: with its own calibration.
        """
        try:
            return Pipeline.load(
                pack,
                policy=self._config.policy(model),
                calibration_file=self._calibration(model, pack) if calibrated else None,
                secret=secret,
                like=like,
            )
        except ConfigError as error:
            if like is None:
                raise
            raise PackError(f"{pack.name}: {error}") from error

    def _calibration(self, model: Model, pack: Pack) -> Path | None:
        """The settings' calibration; a promoted pack brings its own, unless it was made for it."""
        if not model.calibration:
            return None
        path = Path(model.calibration)
        if pack.folder == Path(model.pack):
            return path
        entries = calibration.load(path).values()
        return path if all(entry.about.get("pack") == pack.digest for entry in entries) else None


class Loading:
    """Makes guarded models; one for a whole gateway.

    secret: keys the noise. kept: where suspects go.
    """

    def __init__(self, config: Config, secret: bytes | None, kept: Kept | None = None) -> None:
        self._config, self._secret, self._kept = config, secret, kept
        self.packs = Packs(config)

    def first(self, model: Model) -> GuardedModel:
        """A model as it is at the start: its pack verified, its upstream connected."""
        pack = self.packs.serving(model)
        pipeline = self.packs.pipeline(model, pack, self._secret)
        gateway, policy = self._config.gateway, self._config.policy(model)
        upstream = connect(gateway, model, pipeline) if model.upstream else None
        if upstream is not None:
            metrics.expect_upstream(model.name)
        metrics.BUDGET.labels(model.name).set(policy.max_false_positive_rate)
        watch = sequences_of(model, policy, pipeline, self._secret)
        drift = shifting_of(model, pipeline)
        catch = self._catch(model, pipeline)
        metrics.PROVIDER.labels(model.name, "evidence", pipeline.provider).set(1)
        metrics.serving(model.name, pack.name, pack.digest, pack.serial)
        return GuardedModel(model, policy, pipeline, upstream, gateway, catch, watch, drift)

    def ready(self, old: GuardedModel, pack: Pack) -> Pipeline:
        """A pack made ready to follow an old one, whose graph it shares. Raises PackError."""
        return self.packs.pipeline(old.model, pack, self._secret, like=old.pipeline)

    def next(self, old: GuardedModel, pipeline: Pipeline) -> GuardedModel:
        """The same model behind another pack; upstream, memory of queries and counts go along."""
        drift, catch = shifting_of(old.model, pipeline), self._catch(old.model, pipeline)
        return old.behind(pipeline, self._config.gateway, catch, drift)

    def _catch(self, model: Model, pipeline: Pipeline) -> Catch | None:
        budget = self._config.policy(model).max_false_positive_rate
        return self._kept.catch(model.name, pipeline, budget) if self._kept else None


def connect(gateway: Gateway, model: Model, pipeline: Pipeline) -> Upstream:
    """The model's upstream; a server behind gRPC need not be there yet."""
    name = model.upstream_model or model.name
    if not model.upstream.startswith("onnx:"):
        return GrpcUpstream(
            model.upstream,
            model=name,
            tls=model.tls,
            max_message_bytes=gateway.max_message_bytes,
            known_as=model.name,
        )
    sizes = dict(zip("CHW", pipeline.input_shape, strict=True))
    upstream = OnnxUpstream(
        Path(model.upstream.removeprefix("onnx:")),
        model=name,
        shape=tuple(sizes[letter] for letter in model.input.layout if letter != "N"),
        max_batch=gateway.max_batch,
        max_queue=gateway.max_queue,
    )
    metrics.PROVIDER.labels(model.name, "upstream", upstream.session.provider).set(1)
    return upstream
