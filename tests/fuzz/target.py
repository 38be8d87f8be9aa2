"""What a fuzz target is: bytes in, what happened out; everything else is a finding.

A target names the errors that its part of guard documents. Any other exception, a second of
silence, and a reply that tells a stranger about the inside are findings.
"""

import random
import re
import tempfile
from collections.abc import Hashable, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType

from guard.errors import GuardError

CORPUS = Path(__file__).parent / "corpus"
LONGEST_REPLY = 700  # characters; status.py cuts at 600
INSIDE = re.compile(
    r"(?:/[\w.+-]+){2,}"  # a path
    r"|\b[\w-]+\.(?:py|onnx|npz|so|toml|pem|jsonl|cc|cpp|hpp?|pyx)\b"  # a file
    r"|traceback|site-packages|\bline \d+, in\b|file \""
    r"|(?<!\d)0x[0-9a-f]{5,}|\bobject at\b|<_?[a-z]+[.\w]*\.\w+"  # an address, an object's name
    r"|\b(?:pyarrow|numpy|msgspec|onnxruntime|PIL|asyncio|builtins)\.\w+",
    re.IGNORECASE | re.ASCII,
)


class Finding(Exception):  # noqa: N818 (it is what fuzzing is for)
    """Something that must not happen; `kind` is a column of the table."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Target:
    """One part of guard that untrusted bytes reach. `run` is called with each input.

    errors:  what may be raised; everything else is a crash
    words:   pieces that mutated inputs are seasoned with
    strict:  whether the texts of errors reach a stranger, who must learn nothing from them
    secrets: names of the inside that no reply may hold
    good:    how many of the seeds, from the first, are inputs that are accepted
    structured: how often `mutate` is tried before bytes are changed
    """

    name = ""
    errors: tuple[type[BaseException], ...] = (GuardError,)
    words: Sequence[bytes] = ()
    strict = False
    secrets: Sequence[str] = ()
    good = 8
    structured = 0.5

    def __init__(self) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="canary-7f3a-", dir=_quick_folder())
        self.folder = Path(self._scratch.name)

    def __enter__(self) -> "Target":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        self._scratch.cleanup()

    def close(self) -> None:
        """Let go of what `__init__` took."""

    def seeds(self) -> list[bytes]:
        """Good inputs, made by code."""
        raise NotImplementedError

    @cached_property
    def corpus(self) -> Sequence[bytes]:
        """The seeds, and what is kept in the repository."""
        return (*self.seeds(), *(path.read_bytes() for path in kept(self.name)))

    def mutate(self, data: bytes, rng: random.Random) -> bytes | None:  # noqa: ARG002
        """A change that keeps the input's structure; None: change its bytes instead."""
        return None

    def run(self, data: bytes) -> Hashable:
        """Try one input; what happened, roughly. Raises `Finding`, or what `errors` names."""
        raise NotImplementedError

    def check_reply(self, text: str, data: bytes) -> None:
        """Nothing of the inside in what a stranger is told, unless they said it themselves."""
        if len(text) > LONGEST_REPLY or "\n" in text:
            raise Finding("leak", f"a reply of {len(text)} characters, or of several lines")
        said = " ".join(data.decode(form, "replace").lower() for form in ("utf-8", "latin-1"))
        for found in INSIDE.finditer(text):
            if found[0].lower() not in said:
                raise Finding("leak", f"{found[0]!r} in {text!r}")
        for secret in (*self.secrets, "canary-7f3a"):
            if secret.lower() in text.lower() and secret.lower() not in said:
                raise Finding("leak", f"{secret!r} in {text!r}")


def demand(condition: object, text: str) -> None:
    """A property that must hold."""
    if not condition:
        raise Finding("wrong", text)


def kept(name: str) -> list[Path]:
    """The inputs of one target that the repository keeps."""
    folder = CORPUS / name
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def _quick_folder() -> str | None:
    """Memory where there is some: targets that read files write one per execution."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 (that is the point)
