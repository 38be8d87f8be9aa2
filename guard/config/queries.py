"""Settings of what is made of sequences of queries, `[models.queries]`."""

from typing import Annotated, Literal

from msgspec import Meta, Struct


class Queries(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Queries that nearly repeat each other: what black-box attacks are made of."""

    watch: Annotated[bool, Meta(description="remember queries, and compare each with them")] = False
    on_attack: Annotated[
        Literal["alert", "cached", "block"],
        Meta(
            description="what `mode = enforce` does from then on: alert alone; `cached` answers"
            " what the sequence's first query was answered; `block` tells the attacker"
        ),
    ] = "cached"
    alarm: Annotated[
        int, Meta(ge=2, description="different pictures that nearly repeat each other: an attack")
    ] = 3
    reach: Annotated[
        float, Meta(gt=0, description="distance of two thumbnails that counts as nearly the same")
    ] = 0.12
    stretched_reach: Annotated[
        float, Meta(gt=0, description="the same, of thumbnails without brightness and contrast")
    ] = 0.08
    remembered: Annotated[
        int, Meta(ge=100, le=10_000_000, description="queries remembered, 490 bytes each")
    ] = 100_000
    seconds: Annotated[float, Meta(gt=0, description="for how long")] = 3600.0
