"""What a crash leaves behind: nothing, where pictures of others are in memory."""

import contextlib
import ctypes
import resource

PR_SET_DUMPABLE = 4  # linux/prctl.h


def leave_no_core() -> None:
    """No core file from now on, nor one that the kernel hands to a program (Linux)."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
