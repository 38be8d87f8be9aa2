"""guard: the gateway in front of a production image classifier.

`Pipeline` and `Decision` work without torch; `load_member` and `load_evidence` need the extra
`train` (`pip install 'guard[train]'`) and import it on first use.
"""

from typing import TYPE_CHECKING, Any

from guard.errors import GuardError
from guard.pipeline import Pipeline
from guard.verdict import Decision, Policy, Verdict

if TYPE_CHECKING:
    from guard.defenses.load import load_evidence, load_member

__version__ = "0.1.0"
__all__ = [
    "Decision",
    "GuardError",
    "Pipeline",
    "Policy",
    "Verdict",
    "load_evidence",
    "load_member",
]


def __getattr__(name: str) -> Any:
    if name not in ("load_evidence", "load_member"):
        raise AttributeError(f"module 'guard' has no attribute {name!r}")
    try:
        from guard.defenses import load
    except ModuleNotFoundError as error:
        raise GuardError(f"guard.{name} needs {error.name}: pip install 'guard[train]'") from error
    return getattr(load, name)
