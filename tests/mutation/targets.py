"""The modules whose tests are held to a figure, and the tests that mirror each of them."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
GATEWAY = "guard/gateway"
CREDENTIALS = (
    "tests/gateway/test_edges.py",
    "tests/gateway/test_identity_tokens.py",
    "tests/gateway/test_identity.py",
    "tests/gateway/test_identity_matrix.py",
)
AUDIT = ("tests/gateway/audit", "tests/cli/test_audit.py", "tests/gateway/test_recorded.py")
DESK = (
    "tests/gateway/test_asked.py",
    "tests/gateway/test_desk.py",
    "tests/gateway/test_steps.py",
    "tests/gateway/test_suspects.py",
    "tests/end_to_end/test_suspects.py",
)
STORE = (
    "tests/suspects/test_store.py",
    "tests/suspects/test_store_rows.py",
    "tests/suspects/test_store_review.py",
    "tests/suspects/test_store_erase.py",
    "tests/suspects/test_store_rotation.py",
    "tests/suspects/test_store_tampering.py",
    "tests/suspects/test_store_together.py",
    "tests/suspects/test_embedded.py",
    "tests/suspects/test_backup.py",
)

# Glob of modules: the tests whose business they are.
MIRRORS: dict[str, tuple[str, ...]] = {
    f"{GATEWAY}/identity.py": CREDENTIALS,
    f"{GATEWAY}/tokens.py": CREDENTIALS,
    f"{GATEWAY}/access.py": (*CREDENTIALS, "tests/gateway/test_server.py"),
    f"{GATEWAY}/permissions.py": (*CREDENTIALS, "tests/cli/test_access.py"),
    f"{GATEWAY}/tls.py": (
        "tests/gateway/test_edges.py",
        "tests/gateway/test_tls.py",
        "tests/gateway/test_pages.py",
    ),
    f"{GATEWAY}/watched.py": ("tests/gateway/test_watched.py", "tests/gateway/test_tls.py"),
    f"{GATEWAY}/pages.py": (
        "tests/gateway/test_edges.py",
        "tests/gateway/test_pages.py",
        "tests/gateway/test_recorded.py",
    ),
    f"{GATEWAY}/recorded.py": ("tests/gateway/test_recorded.py", "tests/gateway/audit"),
    f"{GATEWAY}/audit/*.py": AUDIT,
    f"{GATEWAY}/limits.py": ("tests/gateway/test_limits.py", "tests/gateway/test_recorded.py"),
    f"{GATEWAY}/redis_counts.py": ("tests/gateway/test_limits_redis.py",),
    f"{GATEWAY}/admission.py": ("tests/gateway/test_admission.py",),
    f"{GATEWAY}/door.py": ("tests/gateway/test_door.py", "tests/gateway/test_door_kinds.py"),
    f"{GATEWAY}/shares.py": ("tests/gateway/test_shares.py",),
    f"{GATEWAY}/asked.py": DESK,
    f"{GATEWAY}/catch.py": ("tests/gateway/test_catch.py",),
    f"{GATEWAY}/desk.py": DESK,
    f"{GATEWAY}/keeping.py": (
        "tests/gateway/test_keeping.py",
        "tests/gateway/test_keeping_elsewhere.py",
    ),
    f"{GATEWAY}/steps.py": DESK,
    f"{GATEWAY}/suspects.py": DESK,
    f"{GATEWAY}/suspectwire.py": DESK,
    "guard/suspects/agreement.py": ("tests/suspects/test_agreement.py",),
    "guard/suspects/capture.py": ("tests/suspects/test_capture.py",),
    "guard/suspects/crypt.py": ("tests/suspects/test_crypt.py", "tests/suspects/test_keys.py"),
    "guard/suspects/folder.py": STORE,
    "guard/suspects/index.py": STORE,
    "guard/suspects/keeper.py": ("tests/suspects/test_keeper.py",),
    "guard/suspects/keys.py": ("tests/suspects/test_keys.py", *STORE),
    "guard/suspects/late.py": ("tests/suspects/test_late.py",),
    "guard/suspects/opening.py": ("tests/suspects/test_keys.py", *STORE),
    "guard/suspects/packing.py": ("tests/suspects/test_packing.py",),
    "guard/suspects/queries.py": STORE,
    "guard/suspects/reviews.py": STORE,
    "guard/suspects/rows.py": STORE,
    "guard/suspects/schema.py": STORE,
    "guard/suspects/sealing.py": STORE,
    "guard/suspects/sqlite.py": STORE,
    "guard/suspects/suspect_store.py": STORE,
    f"{GATEWAY}/release.py": ("tests/gateway/test_release.py",),
    "guard/pack.py": ("tests/test_pack.py",),
    "guard/onnx.py": ("tests/test_onnx.py", "tests/test_pipeline.py"),
}

# What these run in processes of their own the map of lines does not show.
UNSEEN = (
    "tests/gateway/audit/test_log.py::test_a_full_disk_leaves_whole_records_and_heals",
    "tests/gateway/audit/test_log.py::test_a_killed_process_loses_nothing_it_acknowledged",
)


def targets() -> dict[str, tuple[str, ...]]:
    """Every module of MIRRORS that is there, with those of its tests that are there."""
    return {
        path.relative_to(ROOT).as_posix(): tuple(name for name in tests if (ROOT / name).exists())
        for pattern, tests in MIRRORS.items()
        for path in sorted(ROOT.glob(pattern))
        if path.name != "__init__.py"
    }
