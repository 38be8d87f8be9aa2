"""What is wrong with an image set is named, picture by picture; a good one is left in peace."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from guard.data import ImageSet, signs
from guard.data.check import check, compressed
from guard.data.duplicates import alike, same
from guard.data.findings import Finding, Report
from guard.data.jpeg import grid_votes
from guard.data.scan import Scan, scan, scan_images, splits
from guard.data.sheet import draw
from guard.errors import InputError


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    """The worst finding of each check."""
    report = Report("pictures", {}, findings)
    return {finding.check: finding for finding in reversed(report.ordered())}


def rows(finding: Finding) -> list[int]:
    """Which rows a finding names."""
    return sorted(item.row for item in finding.items)


def through_jpeg(images: np.ndarray, quality: int) -> np.ndarray:
    """Compressed and decoded again."""
    out = []
    for image in images:
        held = io.BytesIO()
        Image.fromarray(image).save(held, "JPEG", quality=quality)
        out.append(np.asarray(Image.open(held)))
    return np.stack(out)


def write(images: ImageSet, folder: Path) -> None:
    """Pictures by class, as PNG."""
    for index, (picture, label) in enumerate(zip(images.images, images.labels, strict=True)):
        path = folder / images.classes[label] / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)


@pytest.fixture(scope="module")
def pair() -> tuple[ImageSet, ImageSet]:
    """Train and test without a fault."""
    return signs.make(360, seed=1), signs.make(180, seed=2)


def test_a_good_set_is_left_in_peace(pair: tuple[ImageSet, ImageSet]) -> None:
    """Untouched procedural signs bring notes and nothing else."""
    found = check([scan_images(pair[0], "train"), scan_images(pair[1], "test")])
    assert {finding.level for finding in found} == {"note"}


def test_copies_are_found_whatever_the_light(pair: tuple[ImageSet, ImageSet]) -> None:
    """Exact, dimmed, noisy and JPEG copies within a split are named, and only those."""
    images = pair[0].images.copy()
    rng = np.random.default_rng(0)
    images[10] = images[200]
    images[11] = (images[201] * 0.8 + 20).astype(np.uint8)
    images[12] = np.clip(images[202] + rng.normal(0, 3, images[202].shape), 0, 255)
    images[13] = through_jpeg(images[203:204], 85)[0]
    assert (same(scan_images(_with(pair[0], images), "train").digests).second == [200]).all()
    near = alike(images)
    assert {(a, b) for a, b in zip(near.first, near.second, strict=True)} == {
        (k, 190 + k) for k in range(10, 14)
    }


def test_blocks_do_not_change_what_is_found(
    pair: tuple[ImageSet, ImageSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small blocks find the same pairs as one large one, in one set and between two."""
    images = np.concatenate([pair[0].images[:150], pair[0].images[40:60]])
    whole = {(a, b) for a, b in zip(*_ends(images, None), strict=True)}
    across = {(a, b) for a, b in zip(*_ends(images[:150], images[150:]), strict=True)}
    monkeypatch.setattr("guard.data.duplicates.BLOCK", 17)
    monkeypatch.setattr("guard.data.duplicates.CHUNK", 3)
    assert {(a, b) for a, b in zip(*_ends(images, None), strict=True)} == whole
    assert {(a, b) for a, b in zip(*_ends(images[:150], images[150:]), strict=True)} == across
    assert whole == {(40 + k, 150 + k) for k in range(20)}
    assert across == {(40 + k, k) for k in range(20)}


def test_one_picture_under_two_labels_is_serious(pair: tuple[ImageSet, ImageSet]) -> None:
    """The contradiction is named with both pictures."""
    images = pair[0].images.copy()
    other = int(np.flatnonzero(pair[0].labels != pair[0].labels[5])[-1])
    images[other] = images[5]
    found = by_check(check([scan_images(_with(pair[0], images), "train")]))["contradiction"]
    assert found.level == "serious"
    assert [(item.row, item.partner) for item in found.items] == [(other, ("train", 5))]


def test_leakage_is_serious(pair: tuple[ImageSet, ImageSet]) -> None:
    """Test pictures that are in train, exactly or nearly, are named with their twin."""
    images = pair[1].images.copy()
    images[:4] = pair[0].images[20:24]
    images[4:8] = through_jpeg(pair[0].images[24:28], 92)
    scans = [scan_images(pair[0], "train"), scan_images(_with(pair[1], images), "test")]
    found = [one for one in check(scans) if one.check == "leakage"]
    assert [one.level for one in found] == ["serious", "serious"]
    assert [rows(one) for one in found] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert found[0].items[0].partner in {("train", k) for k in range(20, 24)}


def test_groups_on_both_sides_are_serious(pair: tuple[ImageSet, ImageSet]) -> None:
    """A track that is in train and in test is named; near copies within a track are no finding."""
    train, test = (
        ImageSet(one.images, one.labels, one.classes, np.arange(len(one)) // 4 + start)
        for one, start in ((pair[0], 0), (pair[1], 88))
    )
    found = by_check(check([scan_images(train, "train"), scan_images(test, "test")]))["groups"]
    assert found.level == "serious"
    assert found.figures["groups"] == [88, 89]
    assert rows(found) == list(range(8))


def test_constant_pictures_and_empty_classes(pair: tuple[ImageSet, ImageSet]) -> None:
    """A one-coloured picture is named, a class nobody is in is serious."""
    images = pair[0].images.copy()
    images[7] = 90
    kept = _with(pair[0], images).subset(pair[0].labels != 3)
    found = by_check(check([scan_images(kept, "train")]))
    assert len(found["constant"].items) == 1
    assert found["balance"].level == "serious"
    assert signs.CLASSES[3] in found["balance"].text
    assert sum(found["balance"].figures["counts"].values()) == len(kept)


@pytest.mark.parametrize("quality", [50, 75, 90])
def test_traces_of_jpeg(quality: int) -> None:
    """Decoded pictures vote for the corner's grid, untouched ones do not, moved ones do not."""
    made = signs.make(100, seed=9)
    images = made.images
    decoded = through_jpeg(images, quality)
    luma = [np.asarray(Image.fromarray(image).convert("L")) for image in decoded]
    assert grid_votes(luma).share > 0.9
    assert grid_votes([one[3:, 2:] for one in luma]).share < 0.3
    untouched = [np.asarray(Image.fromarray(image).convert("L")) for image in images]
    assert grid_votes(untouched).share < 0.4
    told = list(compressed(scan_images(_with(made, decoded), "train")))
    assert [one.level for one in told] == ["warning"]
    assert not list(compressed(scan_images(made, "train")))


def test_broken_pictures_do_not_stop_the_reading(
    pair: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    """Files that are no pictures are listed by name and reason, the others are read, whatever
    their sizes."""
    write(pair[0].subset(slice(0, 40)), tmp_path / "train")
    write(pair[1].subset(slice(0, 20)), tmp_path / "test")
    folder = tmp_path / "train" / "stop"
    (folder / "broken.png").write_bytes(b"\x89PNG not a picture")
    Image.new("RGB", (300, 200), "red").save(folder / "large.png")
    Image.new("L", (9, 9), 3).save(folder / "small.png")
    assert splits(tmp_path) == ["test", "train"]
    read = scan(tmp_path, "train")
    assert len(read) == 42
    assert read.pictures.images.shape == (42, 32, 32, 3)
    found = by_check(check([read]))
    assert [item.name for item in found["unreadable"].items] == ["train/stop/broken.png"]
    assert "0x" not in found["unreadable"].items[0].why
    assert found["unreadable"].level == "serious"
    assert found["size"].items[0].name == "train/stop/small.png"


def test_rows_of_parquet_are_named_as_stored(tmp_path: Path) -> None:
    """A broken picture and a label without a class are named by row; later rows keep theirs."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    made = signs.make(6, seed=3)
    files = []
    for image in made.images:
        held = io.BytesIO()
        Image.fromarray(image).save(held, "PNG")
        files.append({"bytes": held.getvalue(), "path": None})
    files[1] = {"bytes": files[1]["bytes"][:60], "path": None}
    labels = [0, 1, -1, 0, 1, 1]
    table = pa.table({"image": files, "label": labels})
    pq.write_table(table, tmp_path / "train.parquet")
    read = scan(tmp_path, "train")
    assert [row for row, _why in read.broken] == [1, 2]
    assert read.rows.tolist() == [0, 3, 4, 5]
    assert read.formats == {"PNG": 4}


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    """A folder of nothing but broken files ends in one line."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match="no readable picture"):
        scan(tmp_path)


def test_classes_that_disagree_are_serious(pair: tuple[ImageSet, ImageSet]) -> None:
    """The same number must not mean two things."""
    other = ImageSet(pair[1].images, pair[1].labels, tuple(reversed(pair[1].classes)))
    found = by_check(check([scan_images(pair[0], "train"), scan_images(other, "test")]))
    assert found["classes"].level == "serious"


def test_the_sheet_shows_the_findings(pair: tuple[ImageSet, ImageSet]) -> None:
    """Every finding with pictures has a row, and the pictures in it are the set's own."""
    images = pair[0].images.copy()
    images[10] = images[200]
    one = scan_images(_with(pair[0], images), "train")
    empty = draw(Report("signs", {"train": 360}, []), [one])
    sheet = draw(Report("signs", {"train": 360}, check([one])), [one])
    assert sheet.height > empty.height + 96
    pixels = np.asarray(sheet)
    tile = np.asarray(Image.fromarray(images[200]).resize((96, 96), Image.Resampling.NEAREST))
    assert (pixels[82 : 82 + 96, 24 : 24 + 96] == tile).all()


def _with(images: ImageSet, pixels: np.ndarray) -> ImageSet:
    return ImageSet(pixels, images.labels, images.classes, images.groups)


def _ends(images: np.ndarray, others: np.ndarray | None) -> tuple[list[int], list[int]]:
    found = alike(images, others)
    return found.first.tolist(), found.second.tolist()


def test_a_scan_knows_its_length(pair: tuple[ImageSet, ImageSet]) -> None:
    """What was read is counted."""
    read: Scan = scan_images(pair[1], "test")
    assert len(read) == len(pair[1])
