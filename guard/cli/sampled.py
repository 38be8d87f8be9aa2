"""`guard calibrate --from-suspects`: thresholds from the reviewed random sample of traffic."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from guard.config import Model


def calibrate_on_sample(models: Iterable[tuple[Model, Any]], export: Path, out: Path) -> None:
    """Write MODEL.npz for every model, with its pipeline, from one export of suspects."""
    from guard.training.calibrate import write
    from guard.training.cases import from_export
    from guard.training.sampled import calibrate_on

    for model, pipeline in models:
        about = {"data": f"traffic, {export.name}", "upstream": model.upstream or "none"}
        found = calibrate_on(
            pipeline,
            from_export(export),
            model=model.name,
            upstream=bool(model.upstream),
            about=about,
        )
        path = out / f"{model.name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, found.entries, found.rows)
        low, high = found.entries["upstream" if model.upstream else "alone"].realised_rate(
            pipeline.policy.max_false_positive_rate
        )
        for reason, count in found.left_out.items():
            click.echo(f"  left out: {count} {reason}")
        click.echo(f"  the busiest client sent {100 * found.busiest:.0f}% of them")
        click.echo(f"  realised false-alarm rate {100 * low:.2f} to {100 * high:.2f}% (95%)")
        click.echo(
            f"{path}: {found.benign} benign pictures of traffic; set `calibration = {str(path)!r}`"
        )
