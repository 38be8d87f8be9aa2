"""The file of users, and passwords."""

import os
from pathlib import Path

import pytest

from guard.console import users
from guard.console.users import User, Users, hashed, matches, read_users, write_users
from guard.errors import ConfigError
from tests.console.stock import PASSWORD, password_hash


def test_a_password_matches_its_hash_and_no_other_does() -> None:
    """The hash is salted, holds no password, and knows the one it was made of."""
    secret = password_hash()
    assert matches(PASSWORD, secret)
    assert not matches(PASSWORD + " ", secret)
    assert not matches("", secret)
    assert PASSWORD not in secret
    assert hashed(PASSWORD) != secret


def test_the_published_vector_of_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is computed is scrypt: the third vector of RFC 7914, section 12, cut to our length."""
    wanted = bytes.fromhex("7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2")
    seen = users._scrypt("pleaseletmein", b"SodiumChloride", log2_n=14, r=8, p=1)
    assert seen == wanted


@pytest.mark.parametrize("secret", ["", "$$$$", "99$8$1$AA$AA", "x$8$1$AA$AA", "15$8$1$AA"])
def test_a_broken_hash_matches_nothing(secret: str) -> None:
    """A damaged file lets nobody in, and raises nothing."""
    assert not matches(PASSWORD, secret)


def test_users_are_read_back(tmp_path: Path) -> None:
    """What is written is read, by name, and only the owner may read the file."""
    path = tmp_path / "deep" / "users.json"
    ada = User("ada", ("analyst", "trainer"), "north", password_hash())
    write_users(path, [ada])
    assert read_users(path) == {"ada": ada}
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["users.json"]
    assert ada.identity.name == "user:ada"
    assert ada.identity.roles == {"analyst", "trainer"}
    assert ada.identity.scope == "north"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"users": [{}]}', '{"users": 3}', "[" * 9000])
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    """The message names the setting and the file."""
    path = tmp_path / "users.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=r"console.users_file: .*users.json is no file of users"):
        read_users(path)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """Hashes are for the owner's eyes."""
    path = tmp_path / "users.json"
    write_users(path, [])
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_users(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A console does not start without the file it was told of."""
    with pytest.raises(ConfigError, match=r"users_file: .*No such file"):
        Users(tmp_path / "none.json")


def test_the_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """Somebody added may log in at once, somebody taken out may no more."""
    path = tmp_path / "users.json"
    write_users(path, [User("ada", ("analyst",), "", password_hash())])
    found = Users(path)
    assert found.check("ada", PASSWORD)
    write_users(path, [User("ben", ("analyst",), "", password_hash())])
    os.utime(path, (1, 1))
    assert found.check("ada", PASSWORD) is None
    assert found.check("ben", PASSWORD)
    path.write_text("not users")
    assert found.check("ben", PASSWORD) is None
    path.unlink()
    assert found.all() == {}


def test_a_role_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    """A misspelt role is told, not silently nothing."""
    path = tmp_path / "users.json"
    write_users(path, [User("ada", ("analist",), "", password_hash())])
    with pytest.raises(ConfigError, match="no file of users"):
        read_users(path)
