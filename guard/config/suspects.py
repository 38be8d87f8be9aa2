"""Settings of the suspects, `[suspects]`: what is kept of suspicious images, where, how long."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct, structs


class Suspects(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where suspects are kept; none are where neither a folder nor an index is set."""

    folder: Annotated[
        str,
        Meta(description="folder of the suspects on this machine; empty, and no index: none kept"),
    ] = ""
    key_file: Annotated[
        str,
        Meta(
            description="file with the keys that seal them, outside the folder and its backups;"
            " made on first use"
        ),
    ] = ""
    key_variable: Annotated[
        str,
        Meta(description="environment variable that holds the keys instead; guard cannot rotate"),
    ] = ""
    index: Annotated[
        str,
        Meta(
            description="`postgresql://USER@HOST:PORT/DB` where gateways share an index; empty:"
            " SQLite in the folder"
        ),
    ] = ""
    index_password_file: Annotated[str, Meta(description="file with PostgreSQL's password")] = ""
    objects: Annotated[
        str,
        Meta(description="`s3://BUCKET/PREFIX` where sealed images go; empty: files in the folder"),
    ] = ""
    objects_endpoint: Annotated[
        str, Meta(description="URL of an S3 service that is not Amazon's")
    ] = ""
    objects_region: Annotated[str, Meta(description="its region; empty: the environment's")] = ""
    objects_credentials_file: Annotated[
        str,
        Meta(
            description="file with access key id and secret access key, a line each; empty: the"
            " environment's or the machine's role"
        ),
    ] = ""
    timeout: Annotated[
        float, Meta(gt=0, description="seconds that PostgreSQL or S3 may take for one answer")
    ] = 10.0
    sample_rate: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="share of all images kept whatever the verdict, drawn before it is known",
        ),
    ] = 0.001
    max_queue: Annotated[
        int, Meta(ge=1, description="suspects that may wait to be kept; more are lost, counted")
    ] = 4096
    max_queue_bytes: Annotated[
        int, Meta(ge=1, description="memory that waiting suspects may take; more are lost, counted")
    ] = 64 << 20
    keep_days: Annotated[float, Meta(gt=0, description="days after which a suspect is erased")] = (
        90.0
    )
    quota_bytes: Annotated[
        int, Meta(ge=1, description="size of all of them at which the oldest are erased")
    ] = 10 << 30
    reviewers: Annotated[
        int, Meta(ge=1, le=2, description="reviewers who must agree on a label")
    ] = 1
    claim_seconds: Annotated[
        float, Meta(gt=0, description="seconds for which a suspect is one reviewer's alone")
    ] = 300.0
    rotate_after_erase: Annotated[
        bool,
        Meta(
            description="make a new key within a minute of an erasure, so that an old backup opens"
            " nothing that was erased"
        ),
    ] = True
    upkeep_seconds: Annotated[
        float, Meta(gt=0, description="seconds between looks at age, quota and due rotations")
    ] = 20.0

    @property
    def enabled(self) -> bool:
        """Whether suspects are kept at all."""
        return bool(self.folder or self.index)


def suspects_problems(suspects: Suspects, *, released: bool = False) -> Iterator[tuple[str, str]]:
    """Settings that contradict each other: key and complaint; `released`: keys from the hook."""
    if not suspects.enabled:
        if released or suspects != Suspects():
            yield "suspects.folder", "must be set where other settings of suspects are"
        return
    yield from _place_problems(suspects)
    yield from _key_problems(suspects, released)
    if suspects.upkeep_seconds > 30 and suspects.rotate_after_erase:
        yield "suspects.upkeep_seconds", "must be 30 at most: a rotation is due within a minute"


def _place_problems(suspects: Suspects) -> Iterator[tuple[str, str]]:
    if not suspects.folder and not (suspects.index and suspects.objects):
        yield "suspects.folder", "must be set, or both index and objects"
    if suspects.index:
        scheme, _, rest = suspects.index.partition("://")
        if scheme not in ("postgresql", "postgres"):
            yield "suspects.index", "must be postgresql://USER@HOST:PORT/DATABASE"
        elif ":" in rest.partition("/")[0].rpartition("@")[0]:
            yield "suspects.index", "no password here: use index_password_file"
    elif suspects.index_password_file:
        yield "suspects.index_password_file", "is only used with index"
    if suspects.objects:
        bucket = suspects.objects.removeprefix("s3://").partition("/")[0]
        if not suspects.objects.startswith("s3://") or not bucket:
            yield "suspects.objects", "must be s3://BUCKET or s3://BUCKET/PREFIX"
    elif suspects.objects_endpoint or suspects.objects_region or suspects.objects_credentials_file:
        yield "suspects.objects", "must be set where its endpoint, region or credentials are"
    if suspects.objects_endpoint and not suspects.objects_endpoint.startswith(
        ("https://", "http://")
    ):
        yield "suspects.objects_endpoint", "must be https://HOST or http://HOST"


def _key_problems(suspects: Suspects, released: bool) -> Iterator[tuple[str, str]]:
    sources = sum(map(bool, (suspects.key_file, suspects.key_variable, released)))
    if sources == 0:
        yield "suspects.key_file", "must be set: a file outside the suspects' folder"
    elif sources > 1:
        yield "suspects.key_file", "one of key_file, key_variable and gateway.key_release is enough"
    elif not suspects.key_file and suspects.rotate_after_erase:
        yield (
            "suspects.rotate_after_erase",
            "must be false: only keys in a key_file can be rotated here",
        )
    folder, keys = Path(suspects.folder).absolute(), Path(suspects.key_file).absolute()
    if suspects.folder and suspects.key_file and folder in (keys, *keys.parents):
        yield "suspects.key_file", "must not lie in the suspects' own folder"


def suspects_at(suspects: Suspects, at: Callable[[str], str]) -> Suspects:
    """The same settings with paths made by `at`."""
    return structs.replace(
        suspects,
        folder=at(suspects.folder),
        key_file=at(suspects.key_file),
        index_password_file=at(suspects.index_password_file),
        objects_credentials_file=at(suspects.objects_credentials_file),
    )
