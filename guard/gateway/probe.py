"""Asks an upstream about one grey picture, to see whether it and the pack belong together."""

from dataclasses import dataclass

import numpy as np

from guard.config import Gateway, Model
from guard.errors import ConfigError, UpstreamError
from guard.gateway.ask import asking
from guard.pipeline import Pipeline


@dataclass(frozen=True)
class Found:
    """What the upstream said; `reached` False when it is not there."""

    text: str
    reached: bool


def probe(gateway: Gateway, model: Model, pipeline: Pipeline) -> Found:
    """One grey image, asked the way clients ask; raises ConfigError for a pair that does not fit.

    An upstream that is not running is no error: it may start later.
    """
    channels, height, width = pipeline.input_shape
    grey = np.full((1, height, width, channels), 128, np.uint8)
    with asking(gateway, model, pipeline) as ask:
        try:
            answer = ask(grey)
        except UpstreamError as error:
            if error.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                return Found(f"not reachable now, so not checked ({error})", False)
            raise ConfigError(
                f"the upstream and the pack do not fit: {error}", key="models.upstream"
            ) from error
    name = pipeline.classes[int(np.nan_to_num(answer[0], nan=-1).argmax())]
    return Found(f"answers {answer.shape[1]} classes; to a grey picture, {name!r}", True)
