"""The key-release hook: keys from a command, for instance one that first proves to a key broker
what runs on this machine (remote attestation). What that takes and what it gives:
`deploy/docs/encryption-in-use.md`.

The key comes over a pipe and is kept in memory alone. It is in no argument, no file, no log and no
error of ours; what the command writes to its error output is thrown away for the same reason.
"""

import contextlib
import os
import signal
import subprocess  # nosec B404

from guard.config.release import KeyRelease, Released
from guard.errors import ConfigError
from guard.gateway.audit.keys import KeyRing, parse_keys

KEY = "gateway.key_release.command"
LARGEST = 1 << 20  # bytes of a key


def released(release: KeyRelease, name: Released) -> bytes:
    """What the command hands out for this name, without white space around it.

    Blocks until it has ended, at most `timeout` seconds. Raises ConfigError, without a word of
    the command's output, where there is no key.
    """
    program = release.command[0]
    try:
        process = subprocess.Popen(  # nosec B603  # noqa: S603 - the operator's own program
            [*release.command, name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or "cannot be started"
        raise ConfigError(f"{KEY}: {program}: {problem}", key=KEY) from None
    complaint, key, ended = "", b"", False
    try:
        key, ended = process.communicate(timeout=release.timeout)[0].strip(), True
    except subprocess.TimeoutExpired:
        complaint = f"took longer than {release.timeout:g} s"
    finally:
        if not ended:
            _kill(process)
    if not complaint and process.returncode != 0:
        complaint = f"ended with status {process.returncode}"
    if not complaint and not 0 < len(key) <= LARGEST:
        complaint = "wrote nothing" if not key else f"wrote more than {LARGEST} bytes"
    if complaint:
        raise ConfigError(f"{KEY}: {program} {complaint}, so there is no key {name!r}", key=KEY)
    return key


def audit_keys(release: KeyRelease) -> KeyRing | None:
    """The audit log's keys, None where they are in a file. Raises ConfigError."""
    if "audit" not in release.keys:
        return None
    return parse_keys(released(release, "audit"), f"{KEY}: what it hands out as 'audit'", KEY)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Whatever the command started in its session goes with it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
