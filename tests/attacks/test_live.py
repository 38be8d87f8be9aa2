"""Black-box attacks against live servers: a fake model server, and a gateway in front of it."""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from guard.attacks.blackbox import NO_ANSWER, Tally
from guard.attacks.hopskipjump import hopskipjump
from guard.attacks.live import Live
from guard.attacks.simba import simba
from guard.client import CallError, Client
from guard.errors import InputError, UpstreamError
from guard.testing import (
    SHAPE,
    FakeUpstream,
    answer_colour,
    clean_images,
    make_pack,
    suspicious_images,
)

from .loopback import served

ENFORCE = {"mode": "enforce", "on_flag": "block", "max_false_positive_rate": 0.005}
Arrays = Mapping[str, Any]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pack."""
    return make_pack(tmp_path_factory.mktemp("packs") / "tiny")


@contextmanager
def client_of(
    upstream: FakeUpstream, pack: Path | None = None, **settings: Any
) -> Iterator[Client]:
    """A client of the model server, or of a gateway before it."""
    with served(upstream, pack, **settings) as address, Client(address) as client:
        yield client


def pictures(*labels: int) -> Tensor:
    """Plain pictures of these colours."""
    return torch.from_numpy(clean_images(list(labels)))


def test_scores_and_labels_of_a_plain_server() -> None:
    """Probabilities arrive as logarithms, labels as they are, and every picture is counted."""
    with client_of(FakeUpstream()) as client:
        scores, labels = Live(client, "tiny", batch=2), Live(client, "tiny", output="label")
        images = pictures(0, 1, 2, 1, 0)
        shares = answer_colour({"images": images.numpy().astype(np.float64)})["probabilities"]
        assert np.allclose(scores(images).exp(), shares, atol=1e-5)
        assert labels(images).tolist() == scores.labels(images).tolist() == [0, 1, 2, 1, 0]
        assert (scores.asked, scores.kind, labels.kind) == (10, "probabilities", "label")
        assert not scores.exhausted


def test_pictures_travel_with_8_bits() -> None:
    """What the server receives are multiples of 1/255, whatever the attack made."""
    upstream = FakeUpstream()
    with client_of(upstream) as client:
        Live(client, "tiny")(pictures(0) + 0.001)
    sent = np.frombuffer(upstream.requests[0].raw_input_contents[0], np.float32) * 255
    assert np.abs(sent - sent.round()).max() < 1e-4


@pytest.mark.parametrize("form", ["UINT8 NHWC", "BYTES", "FP32 scaled"])
def test_other_forms_of_input(form: str) -> None:
    """Bytes, files and other scales, last channel or first, as the server's metadata ask for."""
    heard: list[Any] = []

    def answer(inputs: Arrays) -> Arrays:
        (value,) = inputs.values()
        heard.append(value)
        return {"scores": np.tile(np.float32([[3.0, -1.0, 0.5]]), (len(value), 1))}

    class Other(FakeUpstream):
        async def _ModelMetadata(self, request: Any, _context: Any) -> Any:  # noqa: N802
            about = await super()._ModelMetadata(request, _context)
            del about.inputs[:], about.outputs[:]
            shape = [-1] if form == "BYTES" else [-1, 8, 8, 3] if "NHWC" in form else [-1, 3, 8, 8]
            about.inputs.add(name="x", datatype=form.split()[0], shape=shape)
            about.outputs.add(name="scores", datatype="FP32", shape=[-1, 3])
            return about

    images = pictures(2, 1)
    with client_of(Other(answer)) as client:
        live = Live(client, "tiny", scale=255.0)
        assert torch.allclose(live(images), torch.tensor([[3.0, -1.0, 0.5]]).expand(2, 3))
        assert live.kind == "logits"
    wanted = (images * 255).round().permute(0, 2, 3, 1).numpy()
    seen = heard[0]
    if form == "BYTES":
        seen = np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in seen.ravel()])
    elif form == "FP32 scaled":
        seen = seen.transpose(0, 2, 3, 1)
    assert np.abs(seen.astype(np.float64) - wanted).max() < 1e-3


def test_blocked_pictures_are_no_answer(pack: Path) -> None:
    """Alone or among others, what the gateway blocks is NaN, NO_ANSWER, and counted."""
    striped = torch.from_numpy(suspicious_images([1]))
    with client_of(FakeUpstream(), pack, **ENFORCE) as client:
        live = Live(client, "tiny")
        both = live(torch.cat([pictures(0), striped]))
        assert both.isfinite().all(1).tolist() == [True, False]
        assert live.labels(striped).tolist() == [NO_ANSWER]
        assert (live.asked, live.blocked) == (3, 2)


def test_flagged_pictures_are_answered_and_counted(pack: Path) -> None:
    """A gateway that only watches answers; the alarms an attack raises are counted."""
    with client_of(FakeUpstream(), pack, max_false_positive_rate=0.005) as client:
        live = Live(client, "tiny")
        assert live.labels(torch.from_numpy(suspicious_images([1, 2]))).tolist() == [1, 2]
        assert (live.flagged, live.blocked) == (2, 0)


def test_hopskipjump_against_a_gateway(pack: Path) -> None:
    """The result is answered wrongly through the gateway, and every query was one picture sent."""
    upstream, tally = FakeUpstream(), Tally()
    images, labels = pictures(0, 1), torch.tensor([0, 1])
    with client_of(upstream, pack, **ENFORCE) as client:
        live = Live(client, "tiny", output="label")
        found = hopskipjump(
            live, images, labels, queries=250, levels=255, starts=pictures(1, 2), tally=tally,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        assert int(tally.queries.sum()) == live.asked
        answer = live(found)
    moved = (found - images).flatten(1).norm(dim=1) > 0
    assert moved.all()
    assert ((answer != labels) & (answer != NO_ANSWER)).all()
    assert len(upstream.requests) > 10


def test_simba_against_a_server() -> None:
    """Scores over the wire are enough."""
    images, labels = pictures(0, 2), torch.tensor([0, 2])
    with client_of(FakeUpstream()) as client:
        live = Live(client, "tiny")
        found = simba(
            live, images, labels, basis="pixel", step=0.6, queries=400, levels=255,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        assert (live.labels(found) != labels).all()


@pytest.mark.parametrize("attack", [hopskipjump, simba])
def test_a_spent_budget_is_no_error(attack: Callable[..., Tensor]) -> None:
    """With the budget gone the attack ends with what it has; not one picture more is sent."""
    upstream = FakeUpstream()
    with client_of(upstream) as client:
        live = Live(client, "tiny", budget=37, batch=8)
        found = attack(live, pictures(0, 1), torch.tensor([0, 1]), queries=200, levels=255)
        assert live.exhausted
        assert live.asked == 37
        assert live.labels(found).tolist() == [NO_ANSWER, NO_ANSWER]
    sent = [request.inputs[0].shape[0] for request in upstream.requests]
    assert sum(sent) == 37
    assert found.shape == (2, *SHAPE)


def test_a_busy_server_is_asked_again_then_left() -> None:
    """Load is waited out a few times; then the pictures count as refused, not as fooled."""
    upstream = FakeUpstream(error=(grpc.StatusCode.RESOURCE_EXHAUSTED, "full"))
    with client_of(upstream) as client:
        live = Live(client, "tiny", patience=2)
        assert live.labels(pictures(0)).tolist() == [NO_ANSWER]
        assert (live.asked, live.refused) == (1, 1)
    assert len(upstream.requests) == 2


def test_mistakes_are_told_at_once() -> None:
    """Nobody there, a caller refused, an output that is not there: one line each."""
    with Client("127.0.0.1:1") as client, pytest.raises(UpstreamError, match="no server"):
        Live(client, "tiny")
    with client_of(FakeUpstream(error=(grpc.StatusCode.PERMISSION_DENIED, "no"))) as client:
        with pytest.raises(InputError, match=r"no output 'logit'; it has probabilities, label"):
            Live(client, "tiny", output="logit")
        with pytest.raises(CallError, match="PERMISSION_DENIED"):
            Live(client, "tiny")(pictures(0))
