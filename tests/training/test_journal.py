"""What is written down about a training."""

import csv
from dataclasses import replace
from pathlib import Path

from PIL import Image

from guard.training.classifier import train
from guard.training.journal import COLUMNS, Journal, draw
from tests.training.toys import NATURAL, colours


def rows(path: Path) -> list[dict[str, str]]:
    """The file as a spreadsheet would read it."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_epoch_has_a_row_with_every_column(tmp_path: Path) -> None:
    """Losses and accuracies of a training stand under their own names."""
    recipe = replace(
        NATURAL, epochs=2, attacks={"pgd": 1.0}, steps=2, objective="trades", peak_rate=0.05
    )
    train(recipe, colours(48, 0), colours(30, 1), 3, folder=tmp_path)
    found = rows(tmp_path / "log.csv")
    assert [row["epoch"] for row in found] == ["1", "2"]
    for row in found:
        assert list(row) == list(COLUMNS)
        assert float(row["attacked_loss"]) >= float(row["clean_loss"]) > 0
        assert float(row["loss"]) >= float(row["clean_loss"])
        assert 0 <= float(row["robust"]) <= float(row["clean"]) <= 1
        assert float(row["seconds"]) > 0
        assert float(row["images_per_second"]) > 0
    assert float(found[-1]["eps"]) == float(f"{recipe.eps:.6g}")
    assert float(found[-1]["passes"]) == 2 * recipe.passes()
    assert int(found[-1]["step"]) == 2 * 3


def test_rows_done_again_are_dropped(tmp_path: Path) -> None:
    """After a stop the file has each epoch once."""
    journal = Journal(tmp_path)
    for epoch in (1, 2, 3):
        journal.write({"epoch": epoch, "loss": 1.0})
    again = Journal(tmp_path, epochs_done=2)
    again.write({"epoch": 3, "loss": 0.5})
    found = rows(tmp_path / "log.csv")
    assert [(row["epoch"], row["loss"]) for row in found] == [("1", "1"), ("2", "1"), ("3", "0.5")]


def test_curves_are_drawn(tmp_path: Path) -> None:
    """One picture of several runs, natural ones too, whose clean loss is missing."""
    paths = []
    for name in ("one", "two"):
        journal = Journal(tmp_path / name)
        for epoch in range(1, 4):
            seen = {"clean": 0.8, "robust": 0.1 * epoch, "loss": 1 / epoch, "eps": 0.03}
            journal.write({"epoch": epoch, **seen, "clean_loss": float("nan")})
        paths.append(tmp_path / name / "log.csv")
    draw(paths, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 1000
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 20
