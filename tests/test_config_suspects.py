"""The settings of suspects: what is refused, and that paths start from the file's folder."""

from pathlib import Path

import pytest

from guard.config import Config, load_config
from guard.config.suspects import Suspects
from guard.errors import ConfigError

KEPT = 'folder = "kept"\nkey_file = "keys"\n'
SHARED = 'index = "postgresql://guard@db:5432/guard"\nobjects = "s3://bucket/guard"\n'
RELEASE = '[gateway.key_release]\ncommand = ["/bin/release"]\nkeys = ["suspects"]\n'


def load(folder: Path, suspects: str, sections: str = "") -> Config:
    """A config with these lines in [suspects]."""
    path = folder / "guard.toml"
    models = '[[models]]\nname = "m"\npack = "p"\nanswer = "ensemble"\n'
    path.write_text(f"{models}[suspects]\n{suspects}{sections}")
    return load_config(path)


@pytest.mark.parametrize(
    ("suspects", "sections"),
    [
        ("", ""),
        (KEPT, ""),
        (KEPT + "sample_rate = 0\nreviewers = 2\nkeep_days = 0.5\n", ""),
        (SHARED + 'key_file = "keys"\n', ""),
        (KEPT + SHARED + 'objects_endpoint = "http://s3:9000"\n', ""),
        (KEPT + 'index = "postgresql://db/guard"\nindex_password_file = "pw"\n', ""),
        ('folder = "kept"\nkey_variable = "KEYS"\nrotate_after_erase = false\n', ""),
        ('folder = "kept"\nrotate_after_erase = false\n', RELEASE),
        (KEPT + "rotate_after_erase = false\nupkeep_seconds = 3600\n", ""),
    ],
)
def test_settings_that_fit_together_load(tmp_path: Path, suspects: str, sections: str) -> None:
    """Embedded, shared, mixed; keys from a file, the environment or the hook."""
    config = load(tmp_path, suspects, sections)
    assert config.suspects.enabled == bool(suspects)


@pytest.mark.parametrize(
    ("suspects", "sections", "key"),
    [
        ("reviewers = 2\n", "", "folder"),
        ("", RELEASE, "folder"),
        ('folder = "kept"\n', "", "key_file"),
        (KEPT + 'key_variable = "KEYS"\n', "", "key_file"),
        (KEPT, RELEASE, "key_file"),
        ('folder = "kept"\nkey_file = "kept/keys"\n', "", "key_file"),
        ('folder = "kept"\nkey_variable = "KEYS"\n', "", "rotate_after_erase"),
        ('index = "postgresql://db/guard"\nkey_file = "keys"\n', "", "folder"),
        (KEPT + 'index = "mysql://db/guard"\n', "", "index"),
        (KEPT + 'index = "postgresql://me:secret@db/guard"\n', "", "index"),
        (KEPT + 'index_password_file = "pw"\n', "", "index_password_file"),
        (KEPT + 'objects = "https://bucket"\n', "", "objects"),
        (KEPT + 'objects = "s3://"\n', "", "objects"),
        (KEPT + 'objects_region = "eu"\n', "", "objects"),
        (KEPT + 'objects = "s3://b/p"\nobjects_endpoint = "s3:9000"\n', "", "objects_endpoint"),
        (KEPT + "upkeep_seconds = 60\n", "", "upkeep_seconds"),
        (KEPT + "sample_rate = 1.5\n", "", "sample_rate"),
        (KEPT + "reviewers = 3\n", "", "reviewers"),
        (KEPT + "keep_days = 0\n", "", "keep_days"),
        (KEPT + 'folders = "kept"\n', "", "folders"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    tmp_path: Path, suspects: str, sections: str, key: str
) -> None:
    """The error names the key."""
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, suspects, sections)
    assert refused.value.key == f"suspects.{key}", refused.value
    assert "secret" not in str(refused.value)


def test_paths_start_from_the_files_folder(tmp_path: Path) -> None:
    """Folder, keys and password files; addresses are left alone."""
    config = load(tmp_path, KEPT + SHARED + 'index_password_file = "pw"\n')
    at = config.suspects
    assert (at.folder, at.key_file) == (str(tmp_path / "kept"), str(tmp_path / "keys"))
    assert at.index_password_file == str(tmp_path / "pw")
    assert (at.index[:13], at.objects) == ("postgresql://", "s3://bucket/guard")
    assert not Suspects().enabled
