"""Small faults put into a module, one at a time: what a test suite worth its name should notice.

    compare    < and <=, > and >=, == and !=, is and is not, in and not in change places
    logic      and and or change places; `not x` becomes x; a condition becomes its opposite
    number     n becomes n + 1
    flag       True and False change places
    text       a string gets an X in front (messages, which are strings with a space, stay)
    sum        + and -, * and //, | and &, << and >> change places
    return     a result becomes None
    drop       a statement that is only a call, or a raise, becomes pass
    handler    an `except` block raises again instead
    jump       break and continue change places

Docstrings, annotations, `Literal[...]`, log messages and `if TYPE_CHECKING` stay as they are.
"""

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

SWAPS: dict[type[ast.AST], type[ast.AST]] = {}
for _one, _other in (
    (ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot),
    (ast.In, ast.NotIn), (ast.And, ast.Or), (ast.Add, ast.Sub), (ast.Mult, ast.FloorDiv),
    (ast.BitOr, ast.BitAnd), (ast.LShift, ast.RShift),
):  # fmt: skip
    SWAPS |= {_one: _other, _other: _one}
Change = Callable[[Any], ast.AST]


@dataclass(frozen=True)
class Mutant:
    """One fault: where it is and what it does."""

    path: str
    name: str  # path, function, kind and which of them: the same as long as the function is
    line: int
    kind: str
    text: str
    site: int  # its number in `_sites`

    def source(self, text: str) -> str:
        """The module's text with this fault in it."""
        tree = ast.parse(text)
        for number, (_kind, node, change, place) in enumerate(_sites(tree)):
            if number == self.site:
                _put(place, change(copy.deepcopy(node)))
                return ast.unparse(ast.fix_missing_locations(tree)) + "\n"
        raise IndexError(self.name)


Place = tuple[ast.AST, str, int | None]
Site = tuple[str, ast.AST, Change, Place]


def mutants(path: str, text: str) -> list[Mutant]:
    """Every fault of a module, in the order of its lines."""
    tree = ast.parse(text)
    owners = _owners(tree)
    found, seen = [], dict[str, int]()
    for number, (kind, node, change, _) in enumerate(_sites(tree)):
        base = f"{path}:{owners.get(id(node), '')}:{kind}"
        seen[base] = seen.get(base, 0) + 1
        before = ast.unparse(node).splitlines()[0]
        after = ast.unparse(ast.fix_missing_locations(change(copy.deepcopy(node)))).splitlines()[0]
        text_ = f"{before[:60]} -> {after[:60]}"
        line = int(getattr(node, "lineno", 0))
        found.append(Mutant(path, f"{base}:{seen[base]}", line, kind, text_, number))
    return found


def _owners(tree: ast.AST, name: str = "") -> dict[int, str]:
    """The function or class around every node."""
    found = {}
    for node in ast.iter_child_nodes(tree):
        found[id(node)] = name
        named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        inner = f"{name}.{node.name}".lstrip(".") if named else name  # type: ignore[attr-defined]
        found |= _owners(node, inner)
    return found


def _put(place: Place, new: ast.AST) -> None:
    parent, name, index = place
    if index is None:
        setattr(parent, name, new)
    else:
        getattr(parent, name)[index] = new


def _sites(tree: ast.AST) -> Iterator[Site]:
    for parent, name, index, node in _places(tree):
        for kind, change in _changes(node, name):
            yield kind, node, change, (parent, name, index)


def _places(tree: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """Every node that may be changed, with its place in its parent."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "type_params", "bases"):
            continue
        items = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        for index, node in items:
            if not isinstance(node, ast.AST) or _left_alone(node, name):
                continue
            yield tree, name, index, node
            yield from _places(node)


def _left_alone(node: ast.AST, field: str) -> bool:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True  # a docstring
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
        return True
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return True
    if isinstance(node, ast.Import | ast.ImportFrom) or field == "format_spec":
        return True
    call = node.value if isinstance(node, ast.Expr) else node
    return isinstance(call, ast.Call) and ast.unparse(call.func).startswith("log.")


def _changes(node: ast.AST, field: str) -> Iterator[tuple[str, Change]]:
    match node:
        case ast.Compare(ops=[op]) if type(op) in SWAPS:
            yield "compare", _compare
        case ast.BoolOp():
            yield "logic", _swap_op
        case ast.UnaryOp(op=ast.Not()):
            yield "logic", lambda node: node.operand
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in SWAPS:
            yield "sum", _swap_op
        case ast.Constant(value=bool()):
            yield "flag", lambda node: ast.Constant(not node.value)
        case ast.Constant(value=int() | float()):
            yield "number", lambda node: ast.Constant(node.value + 1)
        case ast.Constant(value=str() | bytes() as value) if b" " not in _bytes(value):
            yield "text", _longer
        case ast.Return(value=ast.AST() as value) if not _is_none(value):
            yield "return", lambda _: ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.Raise():
            yield "drop", lambda _: ast.Pass()
        case ast.ExceptHandler(body=[*body]) if not isinstance(body[0], ast.Raise):
            yield "handler", _raise_again
        case ast.Break():
            yield "jump", lambda _: ast.Continue()
        case ast.Continue():
            yield "jump", lambda _: ast.Break()
    negatable = isinstance(node, ast.expr) and not isinstance(node, ast.Compare | ast.UnaryOp)
    if negatable and (field in ("test", "ifs")):
        yield "logic", lambda node: ast.UnaryOp(ast.Not(), node)


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _bytes(value: str | bytes) -> bytes:
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value


def _compare(node: ast.Compare) -> ast.AST:
    node.ops = [SWAPS[type(node.ops[0])]()]  # type: ignore[list-item]
    return node


def _swap_op(node: Any) -> ast.AST:
    node.op = SWAPS[type(node.op)]()
    return node  # type: ignore[no-any-return]


def _longer(node: Any) -> ast.AST:
    return ast.Constant((b"X" if isinstance(node.value, bytes) else "X") + node.value)


def _raise_again(node: ast.ExceptHandler) -> ast.AST:
    node.body = [ast.Raise()]
    return node
