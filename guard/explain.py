"""What `guard check` says about a config: the chain, its price, and what happens on failure."""

from collections.abc import Iterator
from typing import Any

from guard.config import Config, Model
from guard.pipeline import Pipeline
from guard.verdict import Policy


def explain(config: Config, model: Model, pipeline: Pipeline) -> Iterator[str]:
    """Lines about one model."""
    policy, pack = config.policy(model), pipeline.pack
    yield f"model {model.name}: pack {pack.name} ({pack.digest[:19]}, {_trust(pipeline)})"
    yield f"  task: {len(pack.classes)} classes, images {'x'.join(map(str, pack.input_shape))}"
    yield f"  answers: {_who(model)}"
    yield f"  chain: {' > '.join(_chain(pack.manifest, upstream=bool(model.upstream)))}"
    yield f"  price: {price(pack.manifest)}, on {pipeline.provider}"
    yield f"  policy: {_policy(policy)}"
    yield from _budget(model, policy, pipeline)
    yield f"  on failure: {_posture(policy)}"
    yield f"  exposes: {policy.expose}"


def price(manifest: Any) -> str:
    """Forward passes and floating-point operations for one image."""
    evidence = manifest["evidence"]
    passes = evidence.get("passes", "unknown number of")
    flops = evidence.get("flops")
    return (
        f"{passes} forward passes" + (f", {flops / 1e6:.0f} MFLOP" if flops else "") + " an image"
    )


def _trust(pipeline: Pipeline) -> str:
    return "pinned by this version" if pipeline.pack.shipped else "hashes match, not signed"


def _who(model: Model) -> str:
    if model.answer == "ensemble":
        return "the pack's robust ensemble"
    return f"the upstream {model.upstream} ({model.upstream_model or model.name})"


def _chain(manifest: Any, *, upstream: bool) -> Iterator[str]:
    for defense in manifest["evidence"].get("defenses", []):
        views = [squeezer["name"] for squeezer in defense.get("squeezers", [])]
        detail = f" ({', '.join(views)})" if views else ""
        asked = f" of the {defense['ask']}" if views or defense["name"] == "noise" else ""
        yield f"{defense['name']}{detail}{asked}"
    if upstream:
        yield "upstream disagreement"
    yield "detector"


def _policy(policy: Policy) -> str:
    act = f"enforce, {policy.on_flag}" if policy.mode == "enforce" else "monitor, records only"
    return f"{act}; false-alarm budget {policy.max_false_positive_rate:g}"


def _budget(model: Model, policy: Policy, pipeline: Pipeline) -> Iterator[str]:
    key = "upstream" if model.upstream else "alone"
    entry = pipeline.calibrations[key]
    low, high = entry.realised_rate(policy.max_false_positive_rate)
    yield (
        f"  calibration: {len(entry)} images ({entry.about.get('upstream', 'the pack alone')}); "
        f"realised false-alarm rate {100 * low:.2f} to {100 * high:.2f}% (95%)"
    )
    if model.upstream and not model.calibration:
        yield "  note: not calibrated for this upstream: `guard calibrate` does that"


def _posture(policy: Policy) -> str:
    if policy.on_error == "allow":
        return "a fault of the defence lets images pass as ABSTAIN; non-finite numbers never pass"
    return "closed: an image that cannot be examined is not answered"
