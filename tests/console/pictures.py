"""The pictures of the console in deploy/docs, taken anew.

    python -m tests.console.pictures [FOLDER]

Procedural signs, judged by the shipped pack beside a classifier that PGD and CW fool; two people
have reviewed some of them. Needs torch and Debian's chromium.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from playwright.sync_api import sync_playwright

from guard import load_member
from guard.attacks.pgd import pgd
from guard.console.serving import Place, opened
from guard.data import signs
from guard.gateway.audit.recorder import OFF
from guard.suspects.opening import open_keys, open_store
from guard.suspects.record import Floats, Review, Suspect
from guard.suspects.store import Store
from tests.console.stock import PACK, PASSWORD, disturbed, pipeline, settings
from tests.console.test_browser import CHROMIUM, FLAGS

COUNT, SEED = 120, 23
DESKTOP = {"viewport": {"width": 1360, "height": 850}}
TALL = {"viewport": {"width": 1360, "height": 1300}}
PHONE = {
    "viewport": {"width": 390, "height": 780}, "is_mobile": True, "has_touch": True,
    "device_scale_factor": 1.5,
}  # fmt: skip
SHOTS: list[tuple[str, str, dict[str, Any], str]] = [
    ("console-queue", "/suspects", DESKTOP, "light"),
    ("console-pictures", "/suspects?view=pictures", DESKTOP, "dark"),
    ("console-suspect", "first", TALL, "light"),
    ("console-suspect-dark", "first", DESKTOP, "dark"),
    ("console-phone", "first", PHONE, "light"),
    ("console-phone-dark", "/suspects", PHONE, "dark"),
]


def attacked() -> tuple[Floats, Floats, np.ndarray]:
    """Images (N, C, H, W), the fooled classifier's answers (N, K), which were attacked (N,)."""
    images, _ = disturbed(COUNT, seed=SEED)
    drawn = signs.make(COUNT, seed=SEED)
    which = np.arange(COUNT) % 3 == 0
    victim = load_member(PACK, "sentinel")  # stands for a standard classifier
    with torch.no_grad():
        clean = torch.from_numpy(drawn.pixels()[which])
        labels = torch.from_numpy(drawn.labels[which].astype(np.int64))
    crafted = pgd(victim, clean, labels, eps=8 / 255, steps=20)
    images[which] = np.rint(crafted.numpy() * 255) / np.float32(255)
    with torch.no_grad():
        answers = victim(torch.from_numpy(images)).softmax(1).numpy()
    return images, answers.astype(np.float32), which


def suspects(store: Store) -> Iterator[Suspect]:
    """What a gateway would have kept of them in the last hours."""
    images, answers, _ = attacked()
    pack, now = pipeline(), time.time()
    evidence = pack.evidence(images)
    verdicts = pack.judge(evidence, answers).rows()
    hours = np.sort(np.random.default_rng(SEED).exponential(1.5, COUNT))
    for index, verdict in enumerate(verdicts):
        marks = {
            "client": store.pseudonym(f"camera-{index % 5}"),
            "tenant": "",
            "model": "signs",
            "pack": pack.pack.digest,
        }
        if verdict.decision.name == "ALLOW" and index % 6:
            continue
        yield Suspect(
            id=store.suspect_id(images[index], **marks),
            taken=now - 3600 * hours[index],
            near=store.near(images[index]),
            sampled=verdict.decision.name == "ALLOW",
            budget=0.01,
            verdict=replace(verdict),
            image=images[index],
            evidence=evidence.rows[index],
            probabilities=evidence.probabilities[index],
            upstream=answers[index],
            noise_index=int(evidence.noise_index[index]),
            trace=f"{7919 * (index + 1):032x}",
            **marks,
        )


def reviewed(store: Store) -> str:
    """Some labels by two people; the suspect to be shown, the most suspicious of an attack."""
    rows = store.rows(order="most_suspicious", limit=40).rows
    shown = next(row for row in rows if row.decision.name == "FLAG" and "sentinel" in row.alarms)
    for index, row in enumerate(one for one in rows if one.id != shown.id):
        if index % 3:
            continue
        first = "adversarial" if row.alarms else "benign"
        store.review([row.id], Review("user:ben", first, time.time()), required=2)
        if index % 2 == 0:
            other = "benign" if index % 5 == 3 else first
            store.review([row.id], Review("user:ada", other, time.time()), required=2)
    store.review([shown.id], Review("user:ben", "adversarial", time.time()), required=2)
    return shown.id


def small(data: bytes) -> bytes:
    """A screenshot in 200 colours: a third of the size, and no difference to be seen."""
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    out = io.BytesIO()
    picture.quantize(200, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def shoot(url: str, first: str, folder: Path) -> None:
    """All the pictures."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for name, path, options, scheme in SHOTS:
            page = browser.new_context(color_scheme=scheme, **options).new_page()
            page.goto(url)
            page.fill("#name", "ada")
            page.fill("#password", PASSWORD)
            page.click("button.primary")
            page.wait_for_url("**/suspects")
            page.goto(url + (f"/suspects/{first}" if path == "first" else path))
            page.wait_for_load_state("networkidle")
            (folder / f"{name}.png").write_bytes(small(page.screenshot()))
            page.context.close()
        browser.close()


def main() -> None:
    """Fill a store, serve the console, take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("deploy/docs"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        config = settings(Path(scratch), reviewers=2)
        keys = open_keys(config.suspects.key_file)
        store = open_store(keys, folder=config.suspects.folder)
        store.put(list(suspects(store)))
        first = reviewed(store)
        with opened(config, Place(store, OFF, None, {"signs": pipeline()})) as port:
            shoot(port.url, first, given.folder)
        store.close()


if __name__ == "__main__":
    main()
