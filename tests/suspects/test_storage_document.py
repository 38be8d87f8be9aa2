"""deploy/docs/suspects-storage.md speaks of what exists, and of the layout as it is."""

import re
from pathlib import Path

import click
import pytest

from guard.cli import main
from guard.suspects.crypt import BYTES, parse_ring
from tests.suspects.samples import suspect
from tests.suspects.stores import embedded

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "deploy" / "docs" / "suspects-storage.md").read_text()


def test_the_layout_is_the_one_on_the_disk(place: Path) -> None:
    """Every file of a store is in the document, and every mode."""
    store = embedded(place)
    store.put([suspect(store, 1)])
    for path in (place / "kept").iterdir():
        name = path.name.removesuffix("-wal").removesuffix("-shm")
        assert f"\n  {name}" in DOCUMENT, name
    store.close()


def test_what_it_names_exists() -> None:
    """Modules behind `python -m`, files, links and commands."""
    for module in re.findall(r"python -m (tests[.\w]+)", DOCUMENT):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
    for name in re.findall(r"`((?:tests|guard)/[\w/.]+)`", DOCUMENT):
        assert (ROOT / name).exists(), name
    for link in re.findall(r"\]\(([\w./-]+\.md)\)", DOCUMENT):
        assert (ROOT / "deploy" / "docs" / link).exists(), link
    group = main.commands["suspects"]
    assert isinstance(group, click.Group)
    commands = re.findall(r"guard suspects (\w+)", DOCUMENT)
    assert commands
    assert set(commands) <= set(group.commands)


def test_the_text_of_a_ring_is_as_it_says() -> None:
    """Whoever keeps the keys can make them by the document alone."""
    (text,) = re.findall(r"`(\{\"format\".*?\})`", DOCUMENT.replace("\n", " "))
    filled = text.replace("HEX", f'"{"ab" * BYTES}"').replace('"..."', '"2026-01-01"')
    ring = parse_ring(filled.encode())
    assert ring.current == 1
    with pytest.raises(ValueError, match="malformed"):
        parse_ring(text.encode())
