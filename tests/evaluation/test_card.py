"""Model cards say what was measured."""

from typing import Any

from guard.evaluation.card import card, overview, percent

ATTACKS = ("FGSM 8/255", "PGD-20 8/255", "DeepFool L2", "CW L2")


def manifest() -> dict[str, Any]:
    """A manifest with one of everything."""
    accuracy = {f"{n} {e}/255": 0.5 for e in (4, 8) for n in ("FGSM", "PGD-20", "PGD-20 margin")}
    tpr = {"tried": 9, "fooled": 7, "TPR 0.05": 0.75, "TPR 0.01": 0.5, "AUROC": 0.9}
    alarm = {
        "images": 100,
        **{f"{b}{k}": 0.02 for b in ("0.05", "0.01") for k in ("", " low", " high")},
    }
    adaptive = {"images": 10, "fooled": 0.9, "flagged": 0.1, "undetected": 0.81}
    return {
        "name": "toy",
        "classes": ["a", "b"],
        "members": [{"name": "plain", "role": "robust", "parameters": 1234}],
        "evidence": {"lead": "plain", "passes": 12},
        "data": {"about": "toys", "images": {"fit": 1, "rehearse": 2, "calibrate": 3, "test": 4}},
        "recipe": {"command": "guard pack build toys"},
        "parity": 1e-6,
        "measured": {
            "examined": 9,
            "production_clean": 0.99,
            "clean": {"plain": 0.917, "ensemble": 0.93},
            "robustness": {key: {"clean": 0.9, **accuracy} for key in ("plain", "ensemble")},
            "detection": dict.fromkeys(ATTACKS, tpr),
            "false_alarms": {"clean": {**alarm, "alone 0.05": 0.03, "alone 0.01": 0.01}},
            "adaptive": {
                f"adaptive PGD 8/255, {who} answers": adaptive for who in ("production", "ensemble")
            },
        },
    }  # fmt: skip


def test_the_card_shows_every_column() -> None:
    """Robustness, static and adaptive detection, false alarms with intervals, the command."""
    text = card(manifest())
    for piece in ("91.7", "7 of 9", "75.0", "81.0", "Clopper-Pearson", "guard pack build toys"):
        assert piece in text


def test_the_overview_never_leaves_the_adaptive_rows_out() -> None:
    """Static figures never stand without the adaptive ones."""
    text = overview([manifest(), manifest()])
    assert text.count("undetected wrong answers") == 2
    assert "75.0 / 50.0" in text
    assert {line.count("|") for line in text.splitlines()} == {4}


def test_no_number_is_a_dash() -> None:
    """What was not measured is not printed as zero."""
    assert percent(None) == percent(float("nan")) == "-"
