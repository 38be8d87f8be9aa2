"""Recipes side by side at equal compute: what each idea of adversarial training is worth.

`standard` learns nothing about attacks. `adaptive` is the scheme this project started from: mixed
attacks, clean and attacked pictures together, a penalty on the distance between their features,
and a strength steered by the gap of the two losses; its ablations leave one of these out each.
`adaptive-literal` keeps the origin's own rule, optimiser and start (Adam 1e-3, eps 0.05). `nfgsm`,
`pgd`, `trades`, `trades-awp` and `mart` are the field's; the `fast-` ones take N-FGSM's single
step. `smooth` and `smooth-adv` train for randomised smoothing (Cohen et al., ICML 2019; Salman et
al., NeurIPS 2019), L2 radii at sigma 0.25. Compute is counted in forward and backward passes
(`Recipe.within`).
"""

from dataclasses import replace

from guard.training.augment import Augment
from guard.training.recipe import Recipe

MIX = {"fgsm": 1.0, "bim": 1.0, "pgd": 1.0, "cw": 1.0, "deepfool": 1.0}
STANDARD = Recipe(
    "plain",
    16,
    attacks={},
    epochs=30,
    peak_rate=0.1,
    options={"normalize": "standard"},
    augment=Augment(flip=True, crop=4),
)
SINGLE = replace(STANDARD, attacks={"nfgsm": 1.0}, peak_rate=0.2)
ADAPTIVE = replace(
    SINGLE,
    attacks=MIX,
    steps=2,
    stride=0.75,
    epsilon="steered",
    start=4 / 255,
    clamp=(2 / 255, 12 / 255),
    clean_weight=0.25,
    feature_weight=0.5,
)
TRADES = replace(SINGLE, attacks={"trades": 1.0}, objective="trades", steps=3, stride=0.5)

LADDER: dict[str, Recipe] = {
    "standard": STANDARD,
    "nfgsm": SINGLE,
    "grad-align": replace(SINGLE, attacks={"fgsm": 1.0}, grad_align=0.2),
    "pgd": replace(SINGLE, attacks={"pgd": 1.0}, steps=2, stride=0.75),
    "adaptive": ADAPTIVE,
    "adaptive-literal": replace(
        ADAPTIVE,
        attacks={"fgsm": 1.0, "pgd": 1.0, "cw": 1.0},
        epsilon="literal",
        start=0.05,
        clamp=(0.01, 0.06),
        optimizer="adam",
        schedule="constant",
        peak_rate=1e-3,
    ),
    "adaptive-fixed-eps": replace(ADAPTIVE, epsilon="warm"),
    "adaptive-one-attack": replace(ADAPTIVE, attacks={"pgd": 1.0}),
    "adaptive-no-features": replace(ADAPTIVE, feature_weight=0.0),
    "trades": TRADES,
    "trades-awp": replace(TRADES, awp=0.005, awp_from=0.5),
    "fast-trades": replace(TRADES, attacks={"nfgsm": 1.0}),
    "fast-trades-awp": replace(TRADES, attacks={"nfgsm": 1.0}, awp=0.005, awp_from=0.5),
    "mart": replace(TRADES, attacks={"pgd": 1.0}, objective="mart"),
    "smooth": replace(STANDARD, sigma=0.25),
    "smooth-adv": replace(
        SINGLE, attacks={"pgd": 1.0}, norm="l2", eps=0.5, steps=2, stride=0.75, sigma=0.25, noises=2
    ),
}
