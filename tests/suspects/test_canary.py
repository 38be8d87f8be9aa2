"""A canary picture and a canary client are found nowhere: not on disk, not in a log or a metric."""

import base64
import hashlib
import itertools
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from guard.client import CallError, Client
from guard.suspects.packing import pack
from guard.suspects.record import Filter
from guard.testing import make_pack, suspicious_images
from tests.end_to_end.peers.servers import ROOT, free_ports
from tests.gateway.credentials import AUDIENCE, ISSUER, Issuer, jwks
from tests.suspects.shelf import suspect

NAME = "canary-7f3a9c51-example"
SHAPE = (3, 16, 16)
WINDOW = 12  # bytes of it in a row that would be no accident
SECRET = "s" * 40  # nosec


def picture(seed: int) -> NDArray[np.float32]:
    """A picture (1, C, H, W) of random grey levels, in stripes that the tiny pack blocks."""
    noise = np.random.default_rng(seed).integers(0, 40, SHAPE)
    levels = (suspicious_images([1], SHAPE)[0] * 200).round() + noise
    return (levels.astype(np.float32) / np.float32(255))[None]


def shingles(data: bytes, step: int) -> set[bytes]:
    """What would give it away, plain and in the usual disguises."""
    windows = [data[at : at + WINDOW] for at in range(0, len(data) - WINDOW + 1, step)]
    windows = [one for one in windows if len(set(one)) > 4]  # no run of equal bytes
    hexed = [one.hex().encode() for one in windows[:: len(windows) // 64 or 1]]
    coded = [base64.b64encode(one)[:12] for one in windows[:: len(windows) // 64 or 1]]
    return {*windows, *hexed, *coded}


def marks(images: list[NDArray[np.float32]]) -> dict[str, set[bytes]]:
    """What to look for, by what it is."""
    found: dict[str, set[bytes]] = {"the name": shingles(NAME.encode(), 1)}
    found["the name"] |= {hashlib.sha256(NAME.encode()).hexdigest().encode()}
    found["the name"] |= {hashlib.sha256(f"jwt:{NAME}".encode()).hexdigest().encode()}
    for image in images:
        levels = (image * 255).round().astype(np.uint8)
        plain = shingles(levels.tobytes(), 4) | shingles(image.tobytes(), 16)
        digest = hashlib.sha256(image.tobytes()).hexdigest().encode()
        found.setdefault("the picture", set()).update(plain, {digest})
    return found


def betrayed(data: bytes, wanted: dict[str, set[bytes]]) -> list[str]:
    """What of it is in there."""
    sizes = {len(mark) for group in wanted.values() for mark in group}
    windows = {size: {data[at : at + size] for at in range(len(data) - size + 1)} for size in sizes}
    return [
        what
        for what, group in wanted.items()
        if any(windows[size] & {one for one in group if len(one) == size} for size in sizes)
    ]


def settings(folder: Path, *, block: bool) -> tuple[Path, str, str]:
    """A gateway's settings with everything that writes, its address and its metrics' address."""
    port, metrics = free_ports(2)
    make_pack(folder / "tiny", shape=SHAPE)
    (folder / "secret").write_text(SECRET)
    enforce = 'mode = "enforce"\non_flag = "block"\n' if block else ""
    file = folder / "guard.toml"
    file.write_text(f"""
[gateway]
listen = "127.0.0.1:{port}"
metrics = "127.0.0.1:{metrics}"
secret_file = "secret"
[gateway.audit]
folder = "audit"
key_file = "keys/audit"
[gateway.identity.tokens]
keys = "tokens.json"
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
[[gateway.identity.grants]]
match = "jwt:*"
roles = ["client", "analyst", "operator", "privacy"]
[suspects]
folder = "suspects"
key_file = "keys/suspects"
sample_rate = 1.0
upkeep_seconds = 0.2
[[models]]
name = "tiny"
pack = "tiny"
answer = "ensemble"
{enforce}""")
    return file, f"127.0.0.1:{port}", f"127.0.0.1:{metrics}"


def unlimited() -> None:
    """A core would be written, if nobody minded."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


def started(config: Path, address: str) -> "subprocess.Popen[bytes]":
    """The gateway, its output in files, its temporary files in its folder."""
    folder = config.parent
    (folder / "tmp").mkdir()
    places = {"TMPDIR": str(folder / "tmp"), "HOME": str(folder)}
    options = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    environment = {**os.environ, **options, **places}
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as error:
        process = subprocess.Popen(
            [sys.executable, "-m", "guard", "serve", str(config)],
            cwd=folder, env=environment, stdout=out, stderr=error, preexec_fn=unlimited,
        )  # fmt: skip
    end = time.monotonic() + 60
    while b" on " not in (folder / "stdout").read_bytes():
        assert process.poll() is None and time.monotonic() < end, (folder / "stderr").read_text()
        time.sleep(0.05)
    assert address.encode() in (folder / "stdout").read_bytes()
    return process


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """All that the gateway wrote, by name."""
    ours = ("tiny/", "guard.toml", "tokens.json", "secret")
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and not name.startswith(ours):
            yield name, path.read_bytes()


def said(call: object, *arguments: object, **options: object) -> str:
    """What a call that must fail says."""
    with pytest.raises(CallError) as refused:
        call(*arguments, **options)  # type: ignore[operator]
    error = refused.value
    return f"{error.code} {error.message} {error.reason} {dict(error.info)}"


def test_the_search_finds_what_is_there() -> None:
    """Plain pixels as floats or bytes, a name, a bare hash of either: each is noticed."""
    image = picture(0)
    wanted = marks([image])
    assert betrayed(b"nothing here" * 1000, wanted) == []
    assert betrayed(b"x" * 100 + image.tobytes()[1000:1100], wanted) == ["the picture"]
    levels = (image * 255).round().astype(np.uint8).tobytes()
    assert betrayed(b"x" * 100 + levels[100:140], wanted) == ["the picture"]
    assert betrayed(hashlib.sha256(image.tobytes()).hexdigest().encode(), wanted) == ["the picture"]
    assert betrayed(f'{{"sub": "{NAME}"}}'.encode(), wanted) == ["the name"]
    record = pack(replace(suspect(), image=image[0], client=NAME))
    assert betrayed(record, wanted) == ["the name", "the picture"]


@pytest.mark.parametrize("block", [False, True])
def test_a_canary_is_found_nowhere(tmp_path: Path, block: bool) -> None:
    """A real gateway keeps canaries, is asked, refuses, erases and crashes: 0 bytes of them in
    files, WAL, logs, audit, metrics, error texts and output; and no core."""
    config, address, metrics = settings(tmp_path, block=block)
    issuer = Issuer()
    (tmp_path / "tokens.json").write_text(jwks(issuer))
    process = started(config, address)
    images = [picture(seed) for seed in range(1, 13)]
    texts = []
    try:
        with (
            Client(address, token=issuer.token(NAME)) as client,
            Client(address, token=issuer.token("reviewer")) as reviewer,
        ):
            for image in images:
                if block:
                    texts.append(said(client.infer, "tiny", image))
                else:
                    client.infer("tiny", image)
            texts.append(said(client.infer, "tiny", images[0][:, :2]))
            texts.append(said(client.infer, "nobody", images[0]))
            texts.append(said(client.suspects.row, "nobodyknows1234"))
            texts.append(said(client.suspects.feedback, "nobodyknows1234", "benign"))
            end = time.monotonic() + 20
            while reviewer.suspects.counts().total < len(images) and time.monotonic() < end:
                time.sleep(0.1)
            rows = reviewer.suspects.rows().rows
            assert len(rows) == len(images)
            client.suspects.feedback(rows[0].id, "benign")
            reviewer.suspects.label([rows[0].id], "adversarial")
            reviewer.suspects.erase(Filter(ids=(rows[1].id,)))
            assert reviewer.suspects.counts(client_name=f"jwt:{NAME}").total == len(images) - 1
            seen = reviewer.suspects.get(rows[2].id)
            assert any(np.array_equal(seen.suspect.image, image[0]) for image in images)
        bearer = {"Authorization": f"Bearer {issuer.token(NAME)}"}
        page = HTTPConnection(metrics, timeout=5)
        page.request("GET", "/metrics", headers=bearer)
        shown = page.getresponse().read()
        assert b"guard_suspects_kept_total 12.0" in shown
    finally:
        process.send_signal(signal.SIGABRT)
        process.wait(20)
    assert process.returncode == -signal.SIGABRT
    names = [name for name, _ in files(tmp_path)]
    assert not [name for name in names if "core" in Path(name).name]
    wanted = marks(images)
    found = {
        name: what
        for name, data in itertools.chain(
            files(tmp_path), [("metrics", shown), ("errors", " ".join(texts).encode())]
        )
        if (what := betrayed(data, wanted))
    }
    assert found == {}
    assert any(name.endswith("-wal") for name in names), names
    assert sum(name.startswith("suspects/records") for name in names) >= len(images) - 1, names
    assert any(name.startswith("audit/") for name in names)
    assert not [name for name in names if NAME in name]
