"""A small pack that can be retrained in a second, and reviewed suspects of an attack it misses."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from guard import calibration, rows
from guard.defenses.load import load_detector
from guard.pack import MANIFEST, Pack, sign_pack, write_manifest
from guard.reviewing import Seen
from guard.rows import Floats
from guard.suspects.export import write_export
from guard.suspects.record import Review, Row, Suspect
from guard.training.build import calibrate
from guard.training.cases import Case, from_gateway
from guard.verdict import Decision, Verdict

SIGNS = Path(__file__).parents[2] / "models" / "signs"
DAY = 86400.0
START = 20000 * DAY  # in 2024
CLIENTS = 8


def small_pack(folder: Path, *, every: int = 8) -> Path:
    """The procedural signs with every so many-th row; signed, under a name of its own."""
    shutil.copytree(SIGNS, folder)
    pack = Pack.load(SIGNS)
    tables = {
        name: table.subset(np.arange(0, len(table), every if name != "calibrate" else 2))
        for name, table in rows.load(pack.files[rows.FILE]).items()
    }
    (folder / rows.FILE).write_bytes(rows.dump(tables))
    entries = calibrate(load_detector(pack), tables["calibrate"])
    (folder / "calibration.npz").write_bytes(calibration.dump(entries))
    manifest = json.loads((folder / MANIFEST).read_text())
    write_manifest(folder, {**manifest, "name": folder.name})
    sign_pack(folder)
    return folder


def features(pack: Pack, count: int, *, attack: bool, seed: int = 0) -> Floats:
    """Rows like clean ones (count, F); of an attack, with evidence no known attack leaves."""
    table = rows.load(pack.files[rows.FILE])["calibrate"]
    dice = np.random.default_rng(seed)
    found = table.features[dice.choice(len(table), count, replace=False)].copy()
    spread = table.features.std(0).clip(1e-2)
    found[:, :-1] += dice.normal(0, 0.3, (count, found.shape[1] - 1)) * spread[:-1]
    if attack:
        found[:, 0] -= 4 * spread[0]
        found[:, 1] += 4 * spread[1]
    return found


def seen(
    pack: Pack, count: int = 60, *, seed: int = 0, digest: str = "", **changes: Any
) -> Iterator[Seen]:
    """As many attacks and as many benign pictures, as a gateway would hand them out."""
    for label, attack in (("adversarial", True), ("benign", False)):
        for number, row in enumerate(features(pack, count, attack=attack, seed=seed + attack)):
            yield one(pack, row, label, f"{label}{seed}x{number}", digest=digest, **changes)


def one(
    pack: Pack, row: Floats, label: Any, name: str, *, digest: str = "", **changes: Any
) -> Seen:
    """One suspect whose evidence is this row (F,)."""
    number = int("".join(filter(str.isdigit, name)))
    ours = np.zeros(len(pack.classes), np.float32)
    ours[:2] = 1, np.exp(-row[-1])
    theirs = np.eye(len(pack.classes), dtype=np.float32)[1]
    reviews = tuple(Review(who, label, START) for who in ("anna", "ben"))
    about: dict[str, Any] = {
        "id": name,
        "taken": START + number % 5 * DAY,
        "model": "signs",
        "pack": digest or pack.digest,
        "tenant": "",
        "client": f"client{number % CLIENTS}",
        "sampled": label == "benign",
    }
    known: dict[str, Any] = {"state": "agreed", "label": label, "reviews": reviews}
    known |= {key: value for key, value in changes.items() if key in known}
    about |= {key: value for key, value in changes.items() if key in about}
    verdict = Verdict(Decision.ALLOW, 0.5, 1, {"detector": 0.5}, {"detector": 0.5})
    image = np.random.default_rng(number).integers(0, 256, pack.input_shape) / 255
    suspect = Suspect(
        **about,
        near=(),
        budget=0.05,
        verdict=verdict,
        image=image.astype(np.float32),
        evidence=row[:-1],
        probabilities=ours,
        upstream=changes.get("upstream", theirs),
        noise_index=0,
    )
    row_of = Row(
        **about,
        **known,
        decision=Decision.ALLOW,
        p_value=0.5,
        predicted=1,
        alarms=(),
        seen=1,
        bytes=1,
    )
    return Seen(row_of, suspect)


def cases(pack: Pack, count: int = 60, **changes: Any) -> list[Case]:
    """The same as what learning reads."""
    return list(from_gateway(seen(pack, count, **changes)))


def exported(path: Path, pack: Pack, count: int = 60, **changes: Any) -> Path:
    """The same as a file."""
    write_export(path, seen(pack, count, **changes), {})
    return path
