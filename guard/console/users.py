"""Who may log in to the console: one file, mode 0600, passwords as scrypt hashes.

    {"users": [{"name": "ada", "roles": ["analyst"], "tenant": "", "scrypt": "15$8$1$salt$hash"}]}

Read again when it changes: whoever is taken out, or gets another password, is logged out.
"""

import base64
import hashlib
import hmac
import json
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from guard.durable import write_whole
from guard.errors import ConfigError
from guard.gateway.identity import ROLES, Identity

KEY = "console.users_file"
LOG2_N, R, P = 15, 8, 1  # 32 MiB and about a tenth of a second (RFC 7914)
MEMORY = 160 << 20  # bytes that a hash in the file may ask for at most
SHORTEST = 10  # characters of a password
LONGEST = 1024  # bytes; more is not worth hashing
LONGEST_NAME = 64
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class User:
    """Somebody who may log in. `secret` is the hash of the password, with its parameters."""

    name: str
    roles: tuple[str, ...]
    tenant: str
    secret: str

    @property
    def identity(self) -> Identity:
        """Who this is to the gateway."""
        name = f"user:{self.name}"
        roles = frozenset(role for role in ROLES if role in self.roles)
        return Identity(name, roles, self.tenant or name, "password", self.tenant)


class Users:
    """The file's users; `check` takes as long for a name that is not there. Raises ConfigError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _stamp(path)
        self._users = read_users(path)

    def all(self) -> dict[str, User]:
        """By name, as the file is now; while it cannot be read, nobody."""
        stamp = _stamp(self._path)
        if stamp != self._seen:
            self._seen = stamp
            try:
                self._users = read_users(self._path)
            except ConfigError as error:
                log.error("nobody can log in: %s", error)
                self._users = {}
        return self._users

    def check(self, name: str, password: str) -> User | None:
        """The user of that name, if that is the password. Blocks for a tenth of a second."""
        user = self.all().get(name)
        good = matches(password, user.secret if user else _nobody())
        return user if good else None


@cache
def _nobody() -> str:
    """What a name that is not there is compared with: no password is this."""
    return hashed(secrets.token_hex(16))


def hashed(password: str) -> str:
    """A password as the file keeps it."""
    salt = secrets.token_bytes(16)
    return "$".join((str(LOG2_N), str(R), str(P), _text(salt), _text(_scrypt(password, salt))))


def matches(password: str, secret: str) -> bool:
    """Whether this is the password that was hashed."""
    try:
        log2_n, r, p, salt, wanted = secret.split("$")
        seen = _scrypt(password, _bytes(salt), log2_n=int(log2_n), r=int(r), p=int(p))
        return hmac.compare_digest(seen, _bytes(wanted))
    except (ValueError, OverflowError):
        return False


def read_users(path: Path) -> dict[str, User]:
    """The users of a file, by name. Raises ConfigError."""
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(
                f"{KEY}: {path} must be readable by its owner alone: chmod 600", key=KEY
            )
        found = json.loads(path.read_bytes())
        users = [_user(entry) for entry in found["users"]]
    except OSError as error:
        raise ConfigError(f"{KEY}: {path}: {error.strerror or error}", key=KEY) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{KEY}: {path} is no file of users", key=KEY) from error
    return {user.name: user for user in users}


def write_users(path: Path, users: Sequence[User]) -> None:
    """Replace the file, in one step. Raises ConfigError."""
    entries = [
        {"name": u.name, "roles": list(u.roles), "tenant": u.tenant, "scrypt": u.secret}
        for u in users
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps({"users": entries}, indent=1).encode())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}", key=KEY) from error


def check_name(name: str) -> None:
    """Raise ConfigError for a name that cannot be told apart at a glance."""
    good = name.isascii() and all(letter.isalnum() or letter in "._-@" for letter in name)
    if not good or not 1 <= len(name) <= LONGEST_NAME:
        text = f"{name[:LONGEST_NAME]!r}: a name has letters, digits and . _ - @ only"
        raise ConfigError(text, key="name")


def check_password(password: str) -> None:
    """Raise ConfigError for one that is too short to be worth a hash, or too long."""
    if len(password) < SHORTEST:
        raise ConfigError(f"a password has {SHORTEST} characters at least", key="password")
    if len(password.encode()) > LONGEST:
        raise ConfigError(f"a password has {LONGEST} bytes at most", key="password")


def _user(entry: Any) -> User:
    name, roles, secret = str(entry["name"]), tuple(map(str, entry["roles"])), str(entry["scrypt"])
    if len(secret.split("$")) != 5 or set(roles) - set(ROLES):
        raise ValueError(name)
    return User(name, roles, str(entry.get("tenant", "")), secret)


def _scrypt(password: str, salt: bytes, *, log2_n: int = LOG2_N, r: int = R, p: int = P) -> bytes:
    data = password.encode()[:LONGEST]
    if not 10 <= log2_n <= 17 or not 1 <= r <= 8 or not 1 <= p <= 4:
        raise ValueError("out of bounds")
    return hashlib.scrypt(data, salt=salt, n=1 << log2_n, r=r, p=p, maxmem=MEMORY, dklen=32)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode)
