"""Everything guard raises on purpose. A suspicious image is a verdict, never an error.

GuardError
├── InputError           the caller's tensor, image or data set is unusable
├── UnknownModelError    no such model here
├── ConfigError          guard.toml or a command-line value is wrong
├── PackError            a pack is missing, altered or does not fit
├── OverloadedError      a bounded queue is full, or a caller's limit is reached
├── UpstreamError        the production classifier did not answer usefully
├── AuditError           the audit log cannot be written or read
├── StoreError           suspects cannot be kept or read: the store is away, full or damaged
├── UnknownSuspectError  no such suspect: never kept, or erased
└── NumericError         a number that must be finite is not

Status codes live in `guard/gateway/status.py`, exit codes in `guard/cli/plain.py`.
"""


class GuardError(Exception):
    """Base of all errors raised on purpose; its text is safe to show to a caller."""


class InputError(GuardError):
    """An input tensor, image or data set cannot be used as it is.

    `tensor` names the offending input where there is one.
    """

    def __init__(self, message: str, *, tensor: str | None = None) -> None:
        super().__init__(message)
        self.tensor = tensor


class UnknownModelError(GuardError):
    """The request names a model that this gateway does not serve."""


class ConfigError(GuardError):
    """A setting is unknown, malformed or contradicts another; `key` says which."""

    def __init__(self, message: str, *, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class PackError(GuardError):
    """A pack is missing, incomplete, altered, or does not fit its use."""


class OverloadedError(GuardError):
    """Too much is asked; it is worth trying again in `retry_after` seconds (infinite: never)."""

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UpstreamError(GuardError):
    """The production classifier failed, was unreachable or answered something unusable.

    `code` is the upstream's own status name (for example "UNAVAILABLE") where it gave one.
    """

    def __init__(self, message: str, *, code: str | None = None, retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable


class NumericError(GuardError):
    """The machinery produced a number that is not finite where only finite ones are safe."""


class AuditError(GuardError):
    """The audit log cannot be written or read, or its end is not as it was written."""


class StoreError(GuardError):
    """Suspects cannot be kept or read: their store is away, full or damaged, or lacks a key."""


class UnknownSuspectError(GuardError):
    """There is no suspect of this id: it was never kept, or it was erased."""
