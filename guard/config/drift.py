"""Settings of the watch over p-values and pictures, `[models.drift]`."""

from typing import Annotated

from msgspec import Meta, Struct


class Drift(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whether traffic is still what the model was calibrated on."""

    watch: Annotated[
        bool, Meta(description="test p-values against the calibration, and pictures as well")
    ] = False
    risk: Annotated[
        float,
        Meta(gt=0, lt=0.5, description="chance of an alarm that nothing changed for, ever"),
    ] = 0.001
    tolerance: Annotated[
        float,
        Meta(
            ge=0,
            description="by how much the odds of a small p-value may be off for good, on top of"
            " what the calibration's own size leaves open",
        ),
    ] = 0.25
    reference: Annotated[
        int,
        Meta(ge=200, le=100_000, description="first pictures that later ones are compared with"),
    ] = 2000
    every: Annotated[
        int, Meta(ge=1, description="look at one picture in so many, drawn at random: for videos")
    ] = 1
    callers: Annotated[
        int, Meta(ge=1, le=100_000, description="callers who are compared each for themselves")
    ] = 1000
