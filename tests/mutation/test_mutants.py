"""The faults that are put in: what they are, and that each is one and the only one."""

import ast

import pytest

from tests.mutation.__main__ import plans, sampled
from tests.mutation.mutants import mutants
from tests.mutation.targets import MIRRORS, ROOT, UNSEEN, targets


@pytest.mark.parametrize(
    ("code", "faults"),
    [
        ("x = a < b", {"x = a <= b"}),
        ("x = a is not b", {"x = a is b"}),
        ("x = a and b", {"x = a or b"}),
        ("x = not a", {"x = a"}),
        ("x = a + 1", {"x = a - 1", "x = a + 2"}),
        ("x += 1", {"x -= 1", "x += 2"}),
        ("x = True", {"x = False"}),
        ("x = 'key'", {"x = 'Xkey'"}),
        ("x = b'key'", {"x = b'Xkey'"}),
        ("x = 'a message'", set()),
        ("if a:\n    b", {"if not a:\n    b"}),
        ("f()", {"pass"}),
        ("log.info('key')", set()),
        ("raise E", {"pass"}),
        ("while a:\n    break", {"while not a:\n    break", "while a:\n    continue"}),
        ("def f():\n    'doc'\n    return a", {'def f():\n    """doc"""\n    return None'}),
        ("try:\n    a\nexcept E:\n    b", {"try:\n    a\nexcept E:\n    raise"}),
        ("def f(a: 'x' = 0) -> 'y':\n    pass", {"def f(a: 'x'=1) -> 'y':\n    pass"}),
        ("X = Literal['a']", set()),
        ("if TYPE_CHECKING:\n    import a", set()),
        ("x = a * b", {"x = a // b"}),
    ],
)
def test_the_faults_of_a_line(code: str, faults: set[str]) -> None:
    """Exactly these, each alone."""
    found = [one.source(code).rstrip("\n") for one in mutants("a.py", code)]
    assert len(found) == len(set(found))
    assert set(found) == {ast.unparse(ast.parse(one)) for one in faults}


def test_names_say_where_and_stay() -> None:
    """A fault keeps its name while its function is the same, whatever is around it."""
    code = "def f(a):\n    return a < 1 and a > 2\n"
    names = [one.name for one in mutants("a.py", code)]
    assert len(names) == len(set(names))
    assert "a.py:f:compare:2" in names
    assert [one.name for one in mutants("a.py", "X = 1\n\n" + code)][1:] == names


def test_every_fault_of_a_real_module_compiles_and_differs() -> None:
    """On one of the modules that are meant."""
    path = "guard/gateway/identity.py"
    text = (ROOT / path).read_text()
    before = ast.unparse(ast.parse(text)) + "\n"
    found = mutants(path, text)
    assert len(found) > 50
    for one in found:
        after = one.source(text)
        compile(after, path, "exec")
        assert after != before, one.name


def test_a_sample_is_chosen_by_its_seed_and_survives_another_module() -> None:
    """The same seed, the same faults; a module more takes places and moves nobody."""
    one = {"a.py": "x = 1\n" * 50}
    two = {**one, "b.py": "y = 2\n" * 50}
    first, second = sampled(20, 0, one), sampled(20, 0, two)
    assert first == sampled(20, 0, one) != sampled(20, 1, one)
    kept = [mutant for mutant in second if mutant.path == "a.py"]
    assert 0 < len(kept) < 20
    assert set(kept) <= set(first)


def test_tests_are_chosen_by_line_and_time() -> None:
    """The quickest that run the line, then the rest and what nobody saw; else all of them."""
    (mutant, *_) = mutants("a.py", "x = 1\n")
    seen = {
        "lines": {"a.py": {"1": ["t/slow.py::a", "t/quick.py::b", "other.py::c"]}},
        "seconds": {"t/slow.py::a": 9.0, "t/quick.py::b": 0.1, "other.py::c": 0.1},
    }
    assert plans(seen, mutant, ("t/",)) == [["t/quick.py::b"], ["t/slow.py::a"]]
    assert plans({"lines": {}, "seconds": {}}, mutant, ("t/",)) == [["t/"]]
    audit = plans(seen | {"lines": {"a.py": {"1": ["tests/gateway/audit/x.py::a"]}},
                          "seconds": {"tests/gateway/audit/x.py::a": 1.0}},
                  mutant, ("tests/gateway/audit",))  # fmt: skip
    assert audit == [["tests/gateway/audit/x.py::a"], list(UNSEEN)]


def test_every_module_has_tests_that_exist() -> None:
    """No module is measured by nothing, and no mirror is misspelt."""
    assert all(targets().values())
    named = {test for tests in MIRRORS.values() for test in tests}
    assert not [name for name in named if not (ROOT / name).exists()]
    assert set(MIRRORS) >= {"guard/pack.py", "guard/gateway/tokens.py", "guard/gateway/limits.py"}
