"""One classifier of a pack's recipe, on its own: a member to look at, or a production model."""

from pathlib import Path

from guard.errors import ConfigError
from guard.networks import parameters
from guard.training.classifier import Log, accuracy
from guard.training.ensemble import classifier
from guard.training.export import export_classifier
from guard.training.parts import Parts, pictures
from guard.training.recipes import find, fitted


def train_one(parts: Parts, recipe: str, member: str, *, quick: bool, out: Path, log: Log) -> Path:
    """Train `member` of `recipe` and write it as ONNX: `images` [N, C, H, W] to `logits` [N, K]."""
    chosen = fitted(find(recipe, short=quick), channels=parts.fit.images.shape[-1])
    if member not in chosen.classifiers():
        raise ConfigError(
            f"no member {member!r}; there are {', '.join(chosen.classifiers())}", key="member"
        )
    fit, held = pictures(parts.fit), pictures(parts.rehearse)
    classes = len(parts.fit.classes)
    network = classifier(
        member, chosen.classifiers()[member], fit, held, classes, work=out, log=log
    )
    path = out / f"{member}.onnx"
    export_classifier(network, path, shape=parts.fit.shape)
    right = accuracy(network, pictures(parts.test))
    log(f"{member}: {parameters(network)} parameters, {100 * right:.1f}% of the test pictures")
    return path
