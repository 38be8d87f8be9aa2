"""All cases by group."""

from tests.tampering import arrays, files, graphs, signatures
from tests.tampering.frame import Case

GROUPS: dict[str, list[Case]] = {
    "files": files.CASES,
    "signatures": signatures.CASES,
    "manifests and arrays, signed": arrays.CASES,
    "graphs, signed": graphs.CASES,
}
