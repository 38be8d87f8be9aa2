"""Settings of the audit log, `[gateway.audit]`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct, structs


class AuditSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the audit log is kept, and what happens when it cannot be."""

    folder: Annotated[str, Meta(description="folder of the audit log; empty: none is kept")] = ""
    key_file: Annotated[
        str,
        Meta(description="file with the log's keys, outside the folder; made on first use"),
    ] = ""
    export: Annotated[
        str,
        Meta(
            description="second folder for signed checkpoints, to be shipped to where nobody can"
            " change them; empty: a cut-off end of the log goes unseen"
        ),
    ] = ""
    on_error: Annotated[
        Literal["block", "allow"],
        Meta(description="whether administrative calls are answered when they cannot be recorded"),
    ] = "block"
    checkpoint_every: Annotated[
        int, Meta(ge=1, description="records after which a checkpoint is signed")
    ] = 1000
    checkpoint_seconds: Annotated[
        float, Meta(gt=0, description="seconds after which one is signed, if there is a new record")
    ] = 60.0
    segment_bytes: Annotated[
        int, Meta(ge=4096, description="size at which the log goes on in a new file")
    ] = 16 << 20
    max_queue: Annotated[
        int, Meta(ge=1, description="records that may wait to be written; more are lost, counted")
    ] = 10_000
    count_seconds: Annotated[
        float,
        Meta(gt=0, description="seconds in which equal refusals become one record with a count"),
    ] = 60.0
    timeout: Annotated[
        float, Meta(gt=0, description="seconds that an administrative call waits for its record")
    ] = 5.0


def audit_problems(audit: AuditSettings, *, released: bool = False) -> Iterator[tuple[str, str]]:
    """Settings that contradict each other: key and complaint; `released`: no key file is needed."""
    if not audit.folder:
        if audit.key_file or audit.export or released:
            yield "gateway.audit.folder", "must be set where its keys or export are"
        return
    folder = Path(audit.folder).absolute()
    if not audit.key_file and not released:
        yield "gateway.audit.key_file", "must be set: a file outside the log's folder"
    for key, path in (("key_file", audit.key_file), ("export", audit.export)):
        if path and folder in (Path(path).absolute(), *Path(path).absolute().parents):
            yield f"gateway.audit.{key}", "must not lie in the log's own folder"


def audit_at(audit: AuditSettings, at: Callable[[str], str]) -> AuditSettings:
    """The same settings with paths made by `at`."""
    return structs.replace(
        audit, folder=at(audit.folder), key_file=at(audit.key_file), export=at(audit.export)
    )


def audit_beside(audit: AuditSettings, end: str) -> AuditSettings:
    """The settings of another log beside this one, with `end` after the names of its folders."""
    folder, export = (
        f"{path.rstrip('/')}{end}" if path else "" for path in (audit.folder, audit.export)
    )
    return structs.replace(audit, folder=folder, export=export)
