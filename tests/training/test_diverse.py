"""Members that learn together."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from guard.errors import ConfigError, InputError, NumericError
from guard.evaluation.robustness import Averaged
from guard.networks import Network
from guard.training import diverse
from guard.training.classifier import Machine, canary
from guard.training.diverse import Together, fine_tuning, joint, train_together
from guard.training.diversity import apart
from guard.training.parallel import Team
from guard.training.recipe import Recipe
from tests.training.toys import NATURAL, colours, equal

ROBUST = replace(
    NATURAL, architecture="broad", activation="leaky", attacks={"nfgsm": 1.0}, eps=0.06, warm=0.0,
    epochs=2,
)  # fmt: skip
Made = dict[str, list[Network]]


def fresh(count: int = 2, recipe: Recipe = ROBUST) -> dict[str, Network]:
    """Untrained members of different seeds."""
    return {f"m{seed}": replace(recipe, seed=seed).network(3) for seed in range(count)}


def learned(together: Together, *, count: int = 64, folder: Path | None = None) -> list[Network]:
    """What two fresh members become."""
    made = train_together(together, fresh(), colours(count, 0), colours(40, 1), 3, folder=folder)
    return list(made.values())


@pytest.fixture(scope="module")
def arms() -> Made:
    """Two members that learned together without a term and with either, heavily weighted."""
    ways = {"none": {}, "adp": {"beta": 2.0}, "gal": {"gamma": 4.0}}
    return {
        name: learned(Together(ROBUST, name, **weights), count=128)  # type: ignore[arg-type]
        for name, weights in ways.items()
    }


@pytest.mark.parametrize("diversity", ["none", "adp", "gal"])
def test_members_learn_together(arms: Made, diversity: str) -> None:
    """Each way of learning gives an ensemble that knows the task, under attack too."""
    clean, robust = canary(Averaged(arms[diversity]), colours(90, 2), eps=ROBUST.eps)
    assert clean > 0.9
    assert robust > 0.8


def test_each_term_moves_what_it_names(arms: Made) -> None:
    """ADP widens the second guesses and the mean answer, GAL turns the gradients apart."""
    plain, wide, turned = (apart(made, colours(60, 2)) for made in arms.values())
    assert wide["log_volume"] > plain["log_volume"] + 0.5
    assert wide["entropy"] > plain["entropy"] + 0.2
    assert turned["cosine"] < plain["cosine"] - 0.3


def test_without_a_term_against_their_own_examples_members_learn_as_if_alone() -> None:
    """The only thing members share then is the order of the pictures: no gradient crosses over."""
    own, args = Together(replace(ROBUST, epochs=1), against="own"), (colours(64, 0), colours(40, 1))
    pair = train_together(own, fresh(), *args, 3)
    other = {**fresh(), "m1": replace(ROBUST, seed=9).network(3)}
    alike = train_together(own, other, *args, 3)
    assert not equal(pair["m1"], alike["m1"])
    assert equal(pair["m0"], alike["m0"])


def test_a_stopped_run_goes_on(tmp_path: Path) -> None:
    """Cut off after an epoch and continued, it ends with the weights of a whole run."""
    together = Together(replace(ROBUST, epochs=3, batch=32), "gal")
    whole = learned(together)
    lines: list[str] = []

    def stop(line: str) -> None:
        lines.append(line)
        if line.startswith("epoch 2"):
            raise KeyboardInterrupt

    args = (colours(64, 0), colours(40, 1), 3)
    with pytest.raises(KeyboardInterrupt):
        train_together(together, fresh(), *args, folder=tmp_path, log=stop)
    made = train_together(together, fresh(), *args, folder=tmp_path, log=lines.append)
    assert "resumed at epoch 2" in lines
    assert all(equal(one, two) for one, two in zip(whole, made.values(), strict=True))
    with (tmp_path / "log.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3"]


def test_another_runs_checkpoint_is_refused(tmp_path: Path) -> None:
    """A checkpoint never continues under other terms."""
    learned(Together(replace(ROBUST, epochs=1)), folder=tmp_path)
    with pytest.raises(InputError, match="another run"):
        learned(Together(replace(ROBUST, epochs=1), "adp"), folder=tmp_path)


def test_a_collapse_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the ensemble falls by ten points under PGD the last good weights come back."""
    calls = iter([(0.9, 0.8), (0.9, 0.2)])
    monkeypatch.setattr(diverse, "canary", lambda *_args, **_options: next(calls))
    lines: list[str] = []
    train_together(Together(ROBUST), fresh(), colours(32, 0), colours(30, 1), 3, log=lines.append)
    assert lines[-1] == "epoch 2: collapse, last good weights restored"


def test_members_must_fit_the_pictures_and_each_other() -> None:
    """Other classes, other channels, a lone member, too many for ADP: each in one line."""
    args = (colours(32, 0), colours(30, 1), 3)
    odd = {**fresh(1), "odd": ROBUST.network(4)}
    with pytest.raises(InputError, match="odd has 4 classes and the pictures 3"):
        train_together(Together(ROBUST), odd, *args)
    grey = {**fresh(1), "grey": replace(ROBUST, channels=1).network(3)}
    with pytest.raises(InputError, match=r"grey does not take pictures of shape \(3, 8, 8\)"):
        train_together(Together(ROBUST), grey, *args)
    with pytest.raises(InputError, match="two members"):
        train_together(Together(ROBUST), fresh(1), *args)
    with pytest.raises(InputError, match="at most 2 members"):
        train_together(Together(ROBUST, "adp"), fresh(3), *args)
    with pytest.raises(ConfigError, match="one process"):
        train_together(Together(ROBUST), fresh(), *args, machine=Machine(team=Team(0, 2)))


def test_a_loss_that_is_no_number_ends_in_one_line() -> None:
    """Weights that became infinite stop the run before they spread."""
    members = fresh()
    with torch.no_grad():
        members["m1"].head.weight.fill_(torch.inf)
    with pytest.raises(NumericError, match="epoch 1: the loss became nan"):
        train_together(Together(ROBUST), members, colours(32, 0), colours(30, 1), 3)


def test_terms_that_make_no_sense_are_refused() -> None:
    """A term over different examples, an unknown term, natural training."""
    with pytest.raises(ConfigError, match="common examples"):
        Together(ROBUST, "adp", against="own")
    with pytest.raises(ConfigError, match="no diversity 'trs'"):
        Together(ROBUST, "trs")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="attacks is empty"):
        Together(NATURAL)


def test_equal_compute_counts_the_terms() -> None:
    """ADP costs no further pass; GAL two per epoch; a joint recipe drops what it cannot do."""
    assert Together(ROBUST, "adp").passes() == Together(ROBUST).passes() == 2
    assert Together(ROBUST, "gal").within(13).recipe.epochs == 3
    trades = replace(ROBUST, attacks={"trades": 1.0}, objective="trades", awp=0.01)
    assert joint(trades).attacks == {"nfgsm": 1.0}
    assert not joint(trades).paired
    assert fine_tuning(ROBUST, epochs=7, rate=0.02).rate(0.3) == pytest.approx(0.02)
