"""Where reviewed suspects come from: a gateway, or a file that `guard suspects export` made.

Both become cases: what was said of a picture, the evidence of the time, and the picture itself for
where that evidence is another graph's.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guard.data.picture import decode
from guard.errors import InputError
from guard.suspects.export import CLASSES, Exported
from guard.suspects.record import Floats

AT_ONCE = 256  # rows of a file in memory
NEEDED = (
    *("image", "label", "id", "taken", "model", "pack", "client", "sampled", "state", "predicted"),
    *("reviews", "evidence", "probabilities", "upstream", "shape", "pixels"),
)


@dataclass(frozen=True)
class Case:
    """One suspect, with what people said of it. Letters: K classes, E evidence columns."""

    id: str
    taken: float  # seconds since the epoch
    model: str
    pack: str  # digest of the pack that judged it
    client: str  # keyed hash
    sampled: bool
    predicted: int
    agreed: bool  # the gateway's quorum is reached
    label: str  # what was agreed on: "adversarial", "benign", or neither
    reviewers: int  # people who said so
    dissent: int  # people who said otherwise
    evidence: Floats = field(repr=False)  # (E,)
    probabilities: Floats = field(repr=False)  # (K,)
    upstream: Floats | None = field(repr=False)  # (K,)
    image: Callable[[], Floats] = field(repr=False)  # (C, H, W) in [0, 1]


def from_gateway(found: Iterable[Exported]) -> Iterator[Case]:
    """Suspects as a client's `suspects.export` gives them."""
    for one in found:
        row, suspect = one.row, one.suspect
        said = [review.label for review in row.reviews if review.source == "reviewer"]
        yield Case(
            *(row.id, row.taken, row.model, row.pack, row.client, row.sampled, row.predicted),
            agreed=row.state == "agreed",
            label=row.label or "",
            reviewers=said.count(row.label) if row.label else 0,
            dissent=sum(label != row.label for label in said),
            evidence=suspect.evidence,
            probabilities=suspect.probabilities,
            upstream=suspect.upstream,
            image=partial(_same, suspect.image),
        )


def from_export(path: Path) -> Iterator[Case]:
    """Suspects of an export; InputError, naming the file and the row, where it is none."""
    for number, record in enumerate(_records(path)):
        try:
            yield _case(record)
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise InputError(f"{path}, row {number}: unusable: {error}") from error


def _records(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet as pq
    except ImportError as error:
        raise InputError("this needs pyarrow: pip install 'guard[train]'") from error
    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in NEEDED if name not in file.schema_arrow.names]
            if missing:
                raise InputError(f"{path} is no export of suspects: it has no {missing[0]}")
            for batch in file.iter_batches(AT_ONCE, columns=list(NEEDED)):
                yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _case(record: Mapping[str, Any]) -> Case:
    label = CLASSES[record["label"]] if 0 <= record["label"] < 2 else ""
    said = [one["label"] for one in record["reviews"] if one["source"] == "reviewer"]
    upstream = record["upstream"]
    return Case(
        *(str(record["id"]), float(record["taken"]), str(record["model"]), str(record["pack"])),
        *(str(record["client"]), bool(record["sampled"]), int(record["predicted"])),
        agreed=record["state"] == "agreed",
        label=label,
        reviewers=said.count(label),
        dissent=sum(one != label for one in said),
        evidence=np.asarray(record["evidence"], np.float32),
        probabilities=np.asarray(record["probabilities"], np.float32),
        upstream=None if upstream is None else np.asarray(upstream, np.float32),
        image=partial(_image, record),
    )


def _same(image: Floats) -> Floats:
    return image


def _image(record: Mapping[str, Any]) -> Floats:
    shape = tuple(map(int, record["shape"]))
    if record["pixels"] is not None:
        exact = np.frombuffer(record["pixels"], "<f4").astype(np.float32)
        if exact.size != np.prod(shape):
            raise InputError(f"suspect {record['id']}: its picture is not {shape}")
        return exact.reshape(shape)
    name = f"suspect {record['id']}"
    picture: NDArray[np.uint8] = decode(record["image"]["bytes"], name=name, channels=shape[0])
    return picture.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
