"""`guard train classifier`, through the command line itself."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from guard.cli import main
from guard.errors import ConfigError
from guard.training import checkpoint
from guard.training.ladder import LADDER
from guard.training.single import Order, changed
from tests.training.toys import stored

QUICK = ("--set", "epochs=1", "--set", "width=4", "--set", "bf16=false", "--set", "batch=64")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small pictures of three classes, as Parquet."""
    return stored(tmp_path_factory.mktemp("colours"))


def guard(*arguments: str | Path) -> Result:
    """The command, in this process."""
    return CliRunner().invoke(main, [str(word) for word in ("train", "classifier", *arguments)])


def one_line(found: Result, status: int) -> str:
    """The only line of an error, without a traceback."""
    assert found.exit_code == status, found.output
    lines = [line for line in found.stderr.splitlines() if line.startswith("guard: ")]
    assert len(lines) == 1, found.output
    assert "Traceback" not in found.output
    return lines[0]


def test_a_classifier_is_trained_exported_and_reported(data: Path, tmp_path: Path) -> None:
    """Weights, recipe, journal, curves and ONNX are there; a second call trains nothing."""
    arguments = (data, "--recipe", "nfgsm", *QUICK, "--out", tmp_path, "--device", "cpu")
    first = guard(*arguments)
    assert first.exit_code == 0, first.output
    names = {path.name for path in (tmp_path / "nfgsm").iterdir()}
    assert names == {checkpoint.WEIGHTS, checkpoint.RECIPE, "log.csv", "curves.png"}
    assert (tmp_path / "nfgsm.onnx").stat().st_size > 1000
    assert "of the test pictures" in first.stderr
    again = guard(*arguments)
    assert "already trained" in again.stderr
    assert "epoch 1" not in again.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("nowhere/at/all",), 1, "nowhere/at/all: no such file or folder"),
        (("signs", "--recipe", "magic"), 2, "no recipe 'magic'; there are"),
        (("signs", "--member", "tall"), 2, "no member 'tall'; there are"),
        (("signs", "--set", "eps"), 2, "'eps' is not like eps=8/255"),
        (("signs", "--set", "epsilon_max=1"), 2, "a recipe has no epsilon_max; there are"),
        (("signs", "--set", "eps=strong"), 2, "eps cannot be 'strong'"),
        (("signs", "--set", "eps=8/0"), 2, "eps cannot be '8/0'"),
        (("signs", "--set", "bf16=maybe"), 2, "bf16 cannot be 'maybe'"),
        (("signs", "--set", "epochs=2.5"), 2, "epochs cannot be '2.5'"),
        (("signs", "--set", "epochs=0"), 2, "epochs is 1 at least, not 0"),
        (("signs", "--set", "clamp=0.1"), 2, "clamp cannot be '0.1'"),
        (("signs", "--set", "attacks=apgd:1"), 2, "no training attack 'apgd'"),
        (("signs", "--set", "attacks=pgd:much"), 2, "attacks is not like pgd:3,cw:1"),
        (("signs", "--set", "objective=hinge"), 2, "no objective 'hinge'; there are ce"),
        (("signs", "--set", "augment=none"), 2, "'augment' is not like augment.flip"),
        (("signs", "--set", "augment.spin=1"), 2, "a recipe has no augment.spin; there are"),
        (("signs", "--set", "eps.low=1"), 2, "'eps.low' is not like"),
        (("signs", "--set", "architecture=lenet"), 2, "no architecture 'lenet'; there are"),
        (("signs", "--set", "options.spin=1"), 1, "no network"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    arguments: Sequence[str], status: int, text: str, tmp_path: Path
) -> None:
    """The line names what is wrong and what there is instead; misuse has exit status 2."""
    line = one_line(guard(*arguments, "--limit", "700", "--out", tmp_path), status)
    assert text in line
    assert not list(tmp_path.iterdir()), "nothing was begun"


def test_pictures_of_other_classes_are_refused(data: Path, tmp_path: Path) -> None:
    """A held-out set with another number of classes is no judge of this classifier."""
    found = guard(data, "--held", "signs", "--limit", "700", "--out", tmp_path / "out")
    assert "other classes" in one_line(found, 1)


def test_a_corrupt_checkpoint_is_named_and_kept(data: Path, tmp_path: Path) -> None:
    """Resuming from garbage is refused in one line that names the file."""
    path = tmp_path / "standard" / checkpoint.STATE
    path.parent.mkdir()
    path.write_bytes(b"garbage")
    arguments = ("--recipe", "standard", *QUICK, "--device", "cpu", "--out", tmp_path)
    assert str(path) in one_line(guard(data, *arguments), 1)
    assert path.read_bytes() == b"garbage"


def test_a_loss_that_is_no_number_ends_the_command(data: Path, tmp_path: Path) -> None:
    """Exit status 1, epoch and step in the line."""
    wild = ("--set", "peak_rate=1e38", "--set", "clip=1e38", "--set", "schedule=constant")
    arguments = ("--recipe", "standard", *QUICK, *wild, "--device", "cpu", "--out", tmp_path)
    assert "guard: epoch 1, step 2: the" in one_line(guard(data, *arguments), 1)


def test_changes_are_read_in_the_type_of_their_field() -> None:
    """Fractions, flags, words, pairs, weights and options."""
    recipe = LADDER["standard"]
    for change in (
        "eps=4/255", "steps=7", "bf16=false", "objective=mart", "clamp=1/255,0.1",
        "attacks=pgd:3,cw", "augment.flip=false", "augment.erase=0.3", "options.depth=18",
        "options.norm=group", "options.dropout=0.1",
    ):  # fmt: skip
        recipe = changed(recipe, change)
    assert recipe == replace(
        LADDER["standard"],
        eps=4 / 255,
        steps=7,
        bf16=False,
        objective="mart",
        clamp=(1 / 255, 0.1),
        attacks={"pgd": 3.0, "cw": 1.0},
        augment=replace(LADDER["standard"].augment, flip=False, erase=0.3),
        options={"normalize": "standard", "depth": 18, "norm": "group", "dropout": 0.1},
    )


def test_passes_decide_the_epochs() -> None:
    """As many whole epochs as fit into the budget, after the changes."""
    _, recipe = Order("pgd", changes=["steps=4"], passes=42).settle(channels=1)
    assert recipe.epochs == int(42 / recipe.passes()) == 8
    assert recipe.channels == 1


def test_an_order_names_what_is_wrong() -> None:
    """A field that no recipe has is an error about the option --set."""
    with pytest.raises(ConfigError) as caught:
        Order("pgd", changes=["spin=1"]).settle(channels=3)
    assert caught.value.key == "set"
