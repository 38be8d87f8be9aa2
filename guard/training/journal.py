"""What happened during a training, epoch by epoch: a CSV file, and curves to look at."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

COLUMNS = (
    "epoch", "step", "loss", "attacked_loss", "clean_loss", "eps", "rate",
    "clean", "robust", "images_per_second", "passes", "seconds", "event",
)  # fmt: skip


class Journal:
    """`log.csv` in the run's folder; rows of epochs done again after a stop are dropped."""

    def __init__(self, folder: Path | None, *, epochs_done: int = 0) -> None:
        self.path = folder / "log.csv" if folder else None
        self.rows: list[dict[str, str]] = []
        if self.path and self.path.exists() and epochs_done:
            with self.path.open(newline="") as file:
                kept = [row for row in csv.DictReader(file) if row.get("epoch")]
            self.rows = [row for row in kept if int(row["epoch"]) <= epochs_done]

    def write(self, row: Mapping[str, float | int | str]) -> None:
        """Add an epoch."""
        self.rows.append({name: _text(row.get(name, "")) for name in COLUMNS})
        if not self.path:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)
        part.replace(self.path)


def draw(paths: Sequence[Path], picture: Path) -> None:
    """Accuracy, losses and epsilon of one or several runs as curves, into a PNG file."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (right, lower, strength) = pyplot.subplots(1, 3, figsize=(13, 4))
    for path in paths:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        epochs = [int(row["epoch"]) for row in rows]

        def column(name: str, rows: list[dict[str, str]] = rows) -> list[float]:
            return [float(row[name] or "nan") for row in rows]

        name = path.parent.name
        line = right.plot(epochs, column("robust"), label=f"{name}: PGD-10")[0]
        right.plot(epochs, column("clean"), "--", color=line.get_color(), label=f"{name}: clean")
        lower.plot(epochs, column("loss"), color=line.get_color(), label=name)
        eps = [255 * value for value in column("eps")]
        strength.plot(epochs, eps, color=line.get_color(), label=name)
    for axis, title in ((right, "held-out accuracy"), (lower, "loss"), (strength, "eps, 1/255")):
        axis.set_title(title)
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
    right.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)


def _text(value: float | int | str) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
