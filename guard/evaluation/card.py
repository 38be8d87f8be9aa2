"""A pack's MODEL_CARD.md, written from its manifest: nothing in it is typed by hand."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def card(manifest: Mapping[str, Any]) -> str:
    """The model card as Markdown."""
    parts = [
        _head(manifest),
        _members(manifest),
        _detection(manifest["measured"]),
        _adaptive(manifest["measured"]),
        _false_alarms(manifest["measured"]),
        _made(manifest),
    ]
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(share: float | None) -> str:
    """A share as a percentage with one digit, "-" where there is none."""
    return "-" if share is None or share != share else f"{100 * share:.1f}"


def _head(manifest: Mapping[str, Any]) -> str:
    counts, measured = manifest["data"]["images"], manifest["measured"]
    return (
        f"# {manifest['name']}\n\n"
        f"{len(manifest['classes'])} classes, {manifest['data']['about']}. Written by the command "
        f"below from what it measured; percentages. Classifiers were trained on {counts['fit']} "
        f"pictures, the detector on {counts['rehearse']} others, thresholds come from "
        f"{counts['calibrate']} others, and everything here was measured on {counts['test']} "
        "others. Attacked pictures are rounded to 8 bits. The production model under attack is "
        f"{percent(measured['production_clean'])}% accurate, is no member of the pack and was "
        "unknown to the detector."
    )


def _members(manifest: Mapping[str, Any]) -> str:
    measured = manifest["measured"]
    attacks = [name for name in next(iter(measured["robustness"].values())) if name != "clean"]
    about = {m["name"]: (m["role"], f"{m['parameters']:,}") for m in manifest["members"]}
    rows = [
        [
            name,
            *about.get(name, ("mean of the robust members", "-")),
            percent(measured["clean"][name]),
            *(percent(row[attack]) for attack in attacks),
        ]
        for name, row in measured["robustness"].items()
    ]
    return (
        "## Accuracy under attack on the classifier itself\n\n"
        f"White box. L-inf; PGD: 20 steps of eps/8, one random start, cross-entropy; *margin*: "
        "worst case per picture over that and the margin loss. Clean on all test pictures, "
        f"attacked on {measured['examined']}.\n\n"
        + table(["model", "role", "parameters", "clean", *attacks], rows)
    )


def _detection(measured: Mapping[str, Any]) -> str:
    keys = ("TPR 0.05", "TPR 0.01", "AUROC", "alone TPR 0.05", "alone TPR 0.01", "alone AUROC")
    rows = [
        [
            name,
            f"{row['fooled']} of {row['tried']}",
            *(percent(row.get(key)) for key in keys),
            percent(row.get("ensemble right")),
        ]
        for name, row in measured["detection"].items()
    ]
    head = ["attack", "fooled", "TPR at 5%", "at 1%", "AUROC"]
    alone = ["alone: TPR at 5%", "at 1%", "AUROC", "ensemble right"]
    return (
        "## Detection, static attacks\n\n"
        "Made on the production model by someone who does not know the gateway. *Fooled*: "
        "attacks that work, of those tried. TPR: share of these flagged at a false-alarm budget "
        "of 5% or 1%. *Alone*: without the production model's answer. *Ensemble right*: share "
        "on which the robust ensemble gives the true class, which is what `substitute` answers. "
        "DeepFool and CW minimise L2 (CW: 100 steps, 4 searches, confidence 0).\n\n"
        + table([*head, *alone], rows)
    )


def _adaptive(measured: Mapping[str, Any]) -> str:
    rows = [
        [
            name,
            str(row["images"]),
            percent(row["fooled"]),
            percent(row["flagged"]),
            percent(row["undetected"]),
        ]
        for name, row in measured["adaptive"].items()
    ]
    return (
        "## Detection, adaptive attack\n\n"
        "White box on everything: production model, members, squeezers (BPDA), noise (EOT; the "
        "secret is unknown to the attacker), detector in the loss; L-inf, 50 steps, one "
        "restart. At a budget of 5%. "
        "*Undetected*: wrong answer and no alarm, of all pictures that were right before: this "
        "is what such an attacker gets.\n\n"
        + table(["attack and posture", "pictures", "wrong", "flagged of these", "undetected"], rows)
    )


def _false_alarms(measured: Mapping[str, Any]) -> str:
    rows = [
        [
            name,
            str(row["images"]),
            percent(row["0.05"]),
            f"{percent(row['0.05 low'])} to {percent(row['0.05 high'])}",
            percent(row["0.01"]),
            f"{percent(row['0.01 low'])} to {percent(row['0.01 high'])}",
            percent(row["alone 0.05"]),
            percent(row["alone 0.01"]),
        ]
        for name, row in measured["false_alarms"].items()
    ]
    head = ["benign pictures", "count", "at 5%", "95% interval", "at 1%", "95% interval"]
    return (
        "## False alarms\n\n"
        "Intervals are Clopper-Pearson over the test pictures. The detector saw noise, blur and "
        "JPEG of random strength as benign in training.\n\n"
        + table([*head, "alone: at 5%", "at 1%"], rows)
    )


def _made(manifest: Mapping[str, Any]) -> str:
    evidence = manifest["evidence"]
    return (
        "## How it was made\n\n"
        f"`{manifest['recipe']['command']}`\n\n"
        + _data(manifest["data"].get("sha256", {}))
        + f"The evidence graph asks for {evidence['passes']} forward passes per picture. ONNX "
        f"Runtime and torch agree to {manifest['parity']:.0e} on 64 procedural pictures. "
        "Recipes: `guard/training/recipes.py`; they stand in `manifest.json` too.\n\n"
        "## Limits\n\n"
        "Small networks for small pictures. A pack guards classifiers of the same task only. "
        "Static figures say nothing about an attacker who knows the defence: read the adaptive "
        "table. Pictures unlike the calibration pictures raise false alarms; calibrate on yours."
    )


def _data(digests: Mapping[str, str]) -> str:
    """Which pictures it was, for who has them too."""
    if not digests:
        return ""
    named = ", ".join(f"{part} `{digest[:16]}`" for part, digest in digests.items())
    return f"SHA-256 of pixels and labels begins with: {named}.\n\n"


def overview(manifests: Sequence[Mapping[str, Any]]) -> str:
    """One table over several packs: the numbers people ask for first, adaptive ones included."""
    head = ["measured", *(f"`{m['name']}`" for m in manifests)]
    keys = [
        ("lead, clean", ("clean",)),
        ("lead, PGD-20 margin 4/255", ("robustness", "PGD-20 margin 4/255")),
        ("lead, PGD-20 margin 8/255", ("robustness", "PGD-20 margin 8/255")),
    ]
    rows = [[text, *(_lead(m, *path) for m in manifests)] for text, path in keys]
    rows += [[f"ensemble, {text[6:]}", *(_of(m, "ensemble", *path) for m in manifests)]
             for text, path in keys]  # fmt: skip
    for attack in ("FGSM 8/255", "PGD-20 8/255", "DeepFool L2", "CW L2"):
        rows.append([f"static {attack}: TPR at 5% / 1%", *(_tpr(m, attack) for m in manifests)])
    rows.append(["false alarms, clean, at 5% / 1%", *(_alarms(m) for m in manifests)])
    for posture in ("production answers", "ensemble answers"):
        name = f"adaptive PGD 8/255, {posture}"
        cells = (percent(m["measured"]["adaptive"][name]["undetected"]) for m in manifests)
        rows.append([f"{name}: undetected wrong answers", *cells])
    return table(head, rows)


def _lead(manifest: Mapping[str, Any], *path: str) -> str:
    return _of(manifest, manifest["evidence"]["lead"], *path)


def _of(manifest: Mapping[str, Any], model: str, part: str, *rest: str) -> str:
    found = manifest["measured"][part][model]
    return percent(found[rest[0]] if rest else found)


def _tpr(manifest: Mapping[str, Any], attack: str) -> str:
    row = manifest["measured"]["detection"][attack]
    return f"{percent(row.get('TPR 0.05'))} / {percent(row.get('TPR 0.01'))}"


def _alarms(manifest: Mapping[str, Any]) -> str:
    row = manifest["measured"]["false_alarms"]["clean"]
    return f"{percent(row['0.05'])} / {percent(row['0.01'])}"
