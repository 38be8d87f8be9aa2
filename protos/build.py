"""Compile the .proto files into the descriptor set that the package ships.

python protos/build.py            writes guard/gateway/descriptors.binpb (needs grpcio-tools)

No Python code is generated: stubs carry the version of the tool that made them and refuse to load
on an older protobuf, descriptors do not. See guard/gateway/protocol.py.
"""

from __future__ import annotations

import sys
import tempfile
from importlib import resources
from pathlib import Path

ROOT = Path(__file__).resolve().parent
TARGET = ROOT.parent / "guard" / "gateway" / "descriptors.binpb"
FILES = (
    "open_inference.proto",
    "guard/v1/guard.proto",
    "guard/v1/packs.proto",
    "google/rpc/error_details.proto",
)


def build(target: Path) -> None:
    """Write the serialised `FileDescriptorSet` of all FILES to `target`."""
    from grpc_tools import protoc

    well_known = resources.files("grpc_tools") / "_proto"
    arguments = ["protoc", f"-I{ROOT}", f"-I{well_known}", f"--descriptor_set_out={target}"]
    status = protoc.main([*arguments, "--include_imports", *FILES])
    if status:
        raise SystemExit(int(status))


def compiled() -> bytes:
    """The descriptor set as the .proto files say it now."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "descriptors.binpb"
        build(target)
        return target.read_bytes()


if __name__ == "__main__":
    TARGET.write_bytes(compiled())
    sys.stdout.write(f"wrote {TARGET.relative_to(ROOT.parent)}\n")
