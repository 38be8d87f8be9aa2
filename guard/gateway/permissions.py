"""Which role may call what: one table for every call of every service, and every page.

What is not in the table nobody may call. A test goes through the services' descriptors and fails
for a call that has no row here.
"""

from collections.abc import Iterable, Mapping

from guard.config.access import Role
from guard.gateway import protocol
from guard.gateway.identity import ROLES

HEALTH_SERVICE = "grpc.health.v1.Health"
REFLECTION_SERVICE = "grpc.reflection.v1alpha.ServerReflection"
METRICS_PAGE = "/metrics"

_ANYBODY = frozenset(ROLES)  # with a role


def _roles(*roles: Role) -> frozenset[Role]:
    return frozenset(roles)


_BY_SERVICE: Mapping[str, Mapping[str, frozenset[Role]]] = {
    protocol.INFERENCE_SERVICE: {
        "ServerLive": _ANYBODY,
        "ServerReady": _ANYBODY,
        "ServerMetadata": _ANYBODY,
        "ModelReady": _ANYBODY,
        "ModelMetadata": _ANYBODY,
        "ModelInfer": _roles("client"),
        "ModelStreamInfer": _roles("client"),
        "ModelConfig": _roles("client", "operator"),
        "ModelStatistics": _roles("operator"),
        "RepositoryIndex": _roles("client", "operator"),
        # Refused for everybody by `wider.py`, which tells an operator why.
        **dict.fromkeys(protocol.REFUSED_METHODS, _roles("operator")),
    },
    protocol.GUARD_SERVICE: {
        "Status": _roles("operator", "analyst", "auditor"),
        "Inspect": _roles("analyst"),  # scores are an attacker's compass
        "ListSuspects": _roles("analyst"),
        "GetSuspect": _roles("analyst"),
        "CountSuspects": _roles("analyst", "operator"),
        "ClaimSuspects": _roles("analyst"),
        "LabelSuspects": _roles("analyst"),
        "UndoLabel": _roles("analyst"),
        "SubmitFeedback": _roles("client"),  # on what they sent themselves
        "ExportSuspects": _roles("trainer"),
        "EraseSuspects": _roles("privacy"),
        "RotateSuspectKeys": _roles("privacy"),
        "ListPacks": _roles("trainer", "approver", "operator", "auditor"),
        "ShadowPack": _roles("trainer"),
        "PromotePack": _roles("approver"),  # and not who submitted it: `promotion.py`
        "RollbackPack": _roles("approver", "operator"),
    },
    HEALTH_SERVICE: {"Check": _ANYBODY, "List": _ANYBODY, "Watch": _ANYBODY},
    REFLECTION_SERVICE: {"ServerReflectionInfo": _roles("operator")},
}
TABLE: Mapping[str, frozenset[Role]] = {
    **{
        f"/{service}/{name}": roles
        for service, calls in _BY_SERVICE.items()
        for name, roles in calls.items()
    },
    METRICS_PAGE: _roles("operator", "auditor"),
}


def permitted(path: str, roles: Iterable[Role]) -> bool:
    """Whether one of these roles may call this path."""
    return not TABLE.get(path, frozenset()).isdisjoint(roles)


def calls_of(roles: Iterable[Role]) -> list[str]:
    """The calls that these roles may make, by their short names, in the table's order."""
    given = frozenset(roles)
    return [path.rpartition("/")[2] for path, may in TABLE.items() if not may.isdisjoint(given)]
