"""Members from folders into folders."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from guard.errors import ConfigError, InputError
from guard.training import checkpoint
from guard.training.classifier import load_classifier
from guard.training.members import ensemble, order, read
from tests.training.test_diverse import ROBUST
from tests.training.toys import colours, equal

RECIPE = replace(ROBUST, epochs=1, peak_rate=0.05)


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two finished members of different shapes."""
    made = []
    for name, width in (("wide", 6), ("slim", 4)):
        recipe = replace(RECIPE, width=width, objective="trades")
        folder = tmp_path / "alone" / name
        checkpoint.save_classifier(folder, recipe.network(3), recipe, classes=3, about={})
        made.append(folder)
    return made


def _age(folder: Path) -> None:
    """As an older version left it: without the field that recipes have had since."""
    path = folder / checkpoint.RECIPE
    stored = json.loads(path.read_text())
    del stored["about"]["together"]["recipe"]["grad_align"]
    path.write_text(json.dumps(stored))


def test_members_learn_on_and_are_read_like_any_classifier(
    tmp_path: Path, folders: list[Path]
) -> None:
    """They keep their recipe, change their weights, and a second call finds them done."""
    together, out = order(folders[0], epochs=1, diversity="adp"), tmp_path / "together"
    lines: list[str] = []
    args = (together, folders, colours(48, 0), colours(30, 1), 3)
    made = ensemble(*args, out=out, log=lines.append)
    again = ensemble(*args, out=out, log=lines.append)
    assert lines[-1] == "already trained together"
    assert not (out / "checkpoint.safetensors").exists()
    _age(out / "wide")
    ensemble(*args, out=out, log=lines.append)
    assert lines[-1] == "already trained together"
    for folder in folders:
        found = checkpoint.described(out / folder.name)
        assert found is not None
        assert found["recipe"] == (checkpoint.described(folder) or {})["recipe"]
        assert found["about"]["together"]["diversity"] == "adp"
        assert equal(made[folder.name], load_classifier(out / folder.name))
        assert equal(made[folder.name], again[folder.name])
        assert not equal(made[folder.name], load_classifier(folder))
    assert set(read([out / "wide", out / "slim"])) == {"wide", "slim"}


def test_from_scratch_trained_weights_play_no_part(tmp_path: Path, folders: list[Path]) -> None:
    """Other weights under the same recipes end in the same members."""
    together = order(folders[0], epochs=1, scratch=True)
    args = (together, folders, colours(32, 0), colours(30, 1), 3)
    first = ensemble(*args, out=tmp_path / "a", scratch=True)
    recipe = replace(RECIPE, width=6, objective="trades")
    other = replace(recipe, seed=5).network(3)
    checkpoint.save_classifier(folders[0], other, recipe, classes=3, about={})
    second = ensemble(*args, out=tmp_path / "b", scratch=True)
    assert equal(first["wide"], second["wide"])


def test_an_order_follows_the_lead_and_what_is_asked(folders: list[Path]) -> None:
    """Fine-tuning starts at the full eps with a small rate; from scratch keeps the recipe's."""
    tuned = order(folders[0], epochs=3, changes=["eps=4/255"]).recipe
    assert (tuned.epochs, tuned.warm, tuned.objective) == (3, 0.0, "ce")
    assert tuned.eps == pytest.approx(4 / 255)
    assert order(folders[0], scratch=True).recipe.peak_rate == RECIPE.peak_rate
    assert order(folders[0], rate=0.01).recipe.peak_rate == 0.01
    assert order(folders[0], passes=13, diversity="gal").recipe.epochs == 3


def test_folders_that_cannot_be_used_are_named(tmp_path: Path, folders: list[Path]) -> None:
    """No classifier there, the same name twice, members that would be written over."""
    args = (colours(32, 0), colours(30, 1), 3)
    with pytest.raises(InputError, match="empty holds no finished classifier"):
        order(tmp_path / "empty")
    with pytest.raises(ConfigError, match="two members are called 'wide'"):
        read([folders[0], folders[0]])
    with pytest.raises(ConfigError, match="holds the members themselves"):
        ensemble(order(folders[0]), folders, *args, out=tmp_path / "alone")
