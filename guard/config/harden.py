"""Settings of how much an answer tells, `[models.output.harden]`."""

from typing import Annotated

from msgspec import Meta, Struct

from guard.config.access import Role


class Harden(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Less of a classifier's confidence in its answers; the label stays what it is."""

    label_only: Annotated[
        bool, Meta(description="1 for the class that is answered, 0 for the rest")
    ] = False
    top_k: Annotated[
        int, Meta(ge=0, description="so many classes keep their number; 0: all of them")
    ] = 0
    decimals: Annotated[
        Annotated[int, Meta(ge=1, le=6)] | None,
        Meta(description="to which probabilities are rounded; default: not rounded"),
    ] = None
    most: Annotated[
        float, Meta(ge=0.5, le=1, description="no probability is said to be larger")
    ] = 1.0
    exempt: Annotated[list[Role], Meta(description="roles whose callers are answered in full")] = []
