"""Which tests prove which row of docs/requirements.md, and which rows are open: `python -m tests.requirement_map`."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HOUSE = Path(__file__).parent.parent
PAGE = HOUSE / "docs" / "requirements.md"
TESTS = HOUSE / "tests"

_ROW = re.compile(r"^\| *([A-Z]{2}-\d{2}) *\| *([^|]+?) *\|", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Row:
    """One requirement."""

    id: str
    subject: str


@dataclass(frozen=True, slots=True)
class Proof:
    """A test, and a row whose id one of its marks names."""

    row_id: str
    test: str


class UnreadableMark(ValueError):
    """A mark whose ids are not written out, so that no reader of the file can see them."""


def rows(page: str) -> list[Row]:
    """The rows of the page's tables, in its order."""
    return [Row(*found) for found in _ROW.findall(page)]


def proofs(source: str, place: str) -> list[Proof]:
    """What the tests of one file prove: by marks of their own, of their class, or of the file (`pytestmark`).

    UnreadableMark names the line of a mark that is not `pytest.mark.req("XX-00", …)`, or that marks no test.
    """
    module = ast.parse(source, place)
    found = list(_in_scope(module.body, _pytestmark(module.body, place), place, place))
    marks = {node for node in ast.walk(module) if _is_req(node)}
    seen = {node for holder in _holders(module) for node in ast.walk(holder)}
    for stray in marks - seen:
        raise UnreadableMark(f"{place}:{getattr(stray, 'lineno', 0)}: a req mark that marks no test")
    return found


def _holders(scope: ast.Module | ast.ClassDef) -> Iterator[ast.expr]:
    """Every expression that marks are read from."""
    yield from _pytestmarks(scope.body)
    for node in scope.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if name.startswith("test"):
                yield from node.decorator_list
            case ast.ClassDef(name=name) if name.startswith("Test"):
                yield from node.decorator_list
                yield from _holders(node)


def _in_scope(body: Sequence[ast.stmt], outer: tuple[str, ...], place: str, file: str) -> Iterator[Proof]:
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if name.startswith("test"):
                ids = (*outer, *_ids(node.decorator_list, file))
                yield from (Proof(row_id, f"{place}::{name}") for row_id in dict.fromkeys(ids))
            case ast.ClassDef(name=name) if name.startswith("Test"):
                ids = (*outer, *_ids(node.decorator_list, file), *_pytestmark(node.body, file))
                yield from _in_scope(node.body, ids, f"{place}::{name}", file)


def _pytestmark(body: Sequence[ast.stmt], file: str) -> tuple[str, ...]:
    """The ids of `pytestmark = …` in a module's or a class's body."""
    return tuple(_ids(_pytestmarks(body), file))


def _pytestmarks(body: Sequence[ast.stmt]) -> Iterator[ast.expr]:
    for node in body:
        match node:
            case ast.Assign(targets=[ast.Name(id="pytestmark")], value=value):
                yield value


def _ids(holders: Iterable[ast.expr], file: str) -> Iterator[str]:
    """The ids of the marks anywhere in `holders`: a list of marks, or a parameter's, are looked into."""
    nodes = [node for holder in holders for node in ast.walk(holder)]
    named = {node.func for node in nodes if isinstance(node, ast.Call) and _is_req(node.func)}
    for node in nodes:
        match node:
            case ast.Call(func=func, args=args, keywords=keywords) if func in named:
                if keywords or not args:
                    raise UnreadableMark(f"{file}:{node.lineno}: a req mark takes the ids of rows, and nothing else")
                yield from (_text(arg, file) for arg in args)
            case ast.Attribute() if _is_req(node) and node not in named:
                raise UnreadableMark(f"{file}:{node.lineno}: a req mark without an id")


def _is_req(node: ast.AST) -> bool:
    """Whether it is `pytest.mark.req` or `mark.req`."""
    match node:
        case ast.Attribute(attr="req", value=ast.Attribute(attr="mark") | ast.Name(id="mark")):
            return True
    return False


def _text(arg: ast.expr, file: str) -> str:
    match arg:
        case ast.Constant(value=str(text)):
            return text
    raise UnreadableMark(f"{file}:{arg.lineno}: the id of a req mark must be written out")


def all_proofs(folder: Path = TESTS) -> list[Proof]:
    """The proofs of every test file below `folder`."""
    found: list[Proof] = []
    for path in sorted(folder.rglob("test_*.py")):
        found += proofs(path.read_text(), path.relative_to(folder.parent).as_posix())
    return found


def report(wanted: Sequence[Row], found: Sequence[Proof], *, only_open: bool = False) -> str:
    """Each row with its tests, the rows that have none, and how many there are of either."""
    tests: dict[str, list[str]] = {row.id: [] for row in wanted}
    for proof in found:
        tests.setdefault(proof.row_id, []).append(proof.test)
    lines: list[str] = []
    if not only_open:
        for row in wanted:
            if tests[row.id]:
                lines += [f"{row.id}  {row.subject}", *(f"       {test}" for test in tests[row.id]), ""]
    is_open = [row for row in wanted if not tests[row.id]]
    lines += ["open:", *(f"  {row.id}  {row.subject}" for row in is_open)]
    proved = len(wanted) - len(is_open)
    marked = len({proof.test for proof in found})
    lines.append(f"{proved} of {len(wanted)} rows have a test ({marked} tests); {len(is_open)} are open")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Prints the report; 2 for an argument other than --open."""
    if set(arguments) - {"--open"}:
        sys.stderr.write("usage: python -m tests.requirement_map [--open]\n")
        return 2
    sys.stdout.write(report(rows(PAGE.read_text()), all_proofs(), only_open="--open" in arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
