"""The line index agrees with tomllib about every key, whatever the text looks like."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.toml_source import TomlError, Where, read_toml
from tests.examples import examples

AWKWARD = '''\
# [not.a.table] key = 1
title = "a # sign, a ] and a } in a string"   # and a comment = 1
owner.name = 'C:\\path "quoted"'
"quoted.key" . 'sub key' = 1979-05-27 07:32:00
long = """
[fake]
key = 1 \\""" still inside
"""""
raw = \'\'\'
it''s = "raw"\'\'\'

[[servers]]
ports = [ 80, # the first
  443,
  [ "8000-8999", ], { low = 1, high = 2 },
]
[servers.tls]
cert = "x"
[[servers]]
ports = []
[servers.tls]
cert = "y"
[[servers.zones]]
name = ""

[ queues . "org:*:notifications" ]
concurrency = 20
point = { x = 1, y.z = [2], "w w" = {} }
'''


def test_every_key_of_an_awkward_file_has_its_line() -> None:
    source = read_toml(AWKWARD)
    assert source.values == tomllib.loads(AWKWARD)
    assert set(source.lines) == set(paths(source.values))
    at = source.lines.__getitem__
    assert at(("title",)) == 2
    assert at(("owner", "name")) == 3
    assert at(("quoted.key", "sub key")) == 4
    assert (at(("long",)), at(("raw",))) == (5, 9)
    assert [at(("servers", i)) for i in (0, 1)] == [12, 19]
    assert [at(("servers", 0, "ports", i)) for i in range(4)] == [13, 14, 15, 15]
    assert at(("servers", 0, "ports", 3, "high")) == 15
    assert [at(("servers", i, "tls", "cert")) for i in (0, 1)] == [18, 22]
    assert at(("servers", 1, "zones", 0, "name")) == 24
    assert at(("queues", "org:*:notifications")) == 26
    assert at(("queues", "org:*:notifications", "concurrency")) == 27
    assert at(("queues", "org:*:notifications", "point", "y", "z", 0)) == 28


def test_windows_line_ends_count_once() -> None:
    source = read_toml('a = 1\r\n[b]\r\nc = """\r\nx\r\n"""\r\nd = 2\r\n')
    assert source.lines["b", "d"] == 6


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a = 1\nb = \n", 2, "Invalid value"),
        ("a = 1\na = 2\n", 2, "Cannot overwrite a value"),
        ("a = 1\n\nb = [1,\n", 3, "at the end of the file"),
        ("[a]\n[a]\n", 2, "Cannot declare"),
        ("a = " + "[" * 5000, 1, "nested too deeply"),
        ("a = " + "9" * 5000, 1, "digits"),
    ],
)
def test_text_that_is_no_toml_names_its_line(text: str, line: int, message: str) -> None:
    with pytest.raises(TomlError, match=message) as caught:
        read_toml(text)
    assert caught.value.line == line


KEYS = st.one_of(st.sampled_from(["a", "b", "a b", "x.y", '"', "#", "=", "[z]", "é", ""]), st.text(max_size=4))
SCALARS = st.one_of(
    st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False), st.text(), st.datetimes(), st.dates()
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=8
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=6)
LAYOUT = st.randoms(use_true_random=False)


@settings(max_examples=examples(150))
@given(DOCUMENTS, LAYOUT)
def test_the_index_knows_exactly_the_keys_tomllib_finds_and_where_they_stand(
    document: dict[str, Any], dice: Any
) -> None:
    writer = Writer(dice)
    writer.document(document)
    source = read_toml(writer.text)
    assert source.values == tomllib.loads(writer.text)
    assert set(source.lines) == set(paths(source.values))
    assert {where: source.lines[where] for where in writer.lines} == writer.lines


def paths(value: Any, where: Where = ()) -> Iterator[Where]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in children:
        yield (*where, name)
        yield from paths(child, (*where, name))


class Writer:
    """Writes a document as TOML in a layout thrown by dice, and notes the line of every key and element it writes."""

    def __init__(self, dice: Any) -> None:
        self.text = ""
        self.lines: dict[Where, int] = {}
        self._dice = dice

    def document(self, table: dict[str, Any], where: Where = ()) -> None:
        later = {k: v for k, v in table.items() if self._as_header(v)}
        for key, value in table.items():
            if key not in later:
                self._gap()
                self._pair(key, value, where)
                self._put(self._dice.choice(["\n", " # c = [\n", "\r\n"]))
        for key, value in later.items():
            many = isinstance(value, list)
            for index, element in enumerate(value if many else [value]):
                self._gap()
                here = (*where, key, index) if many else (*where, key)
                self._note((*where, key))
                self._note(here)
                name = ".".join(self._key(part) for part in here if isinstance(part, str))
                self._put(f"[[{name}]]\n" if many else f"[ {name} ]\n")
                self.document(element, here)

    def _as_header(self, value: Any) -> bool:
        tables = value if isinstance(value, list) else [value]
        return bool(tables) and all(isinstance(t, dict) for t in tables) and self._dice.random() < 0.6

    def _pair(self, key: str, value: Any, where: Where) -> None:
        self._note((*where, key))
        self._put(self._key(key))
        where = (*where, key)
        while isinstance(value, dict) and len(value) == 1 and self._dice.random() < 0.5:
            ((inner, value),) = value.items()
            where = (*where, inner)
            self._note(where)
            self._put(self._dice.choice([".", " . "]) + self._key(inner))
        self._put(self._dice.choice(["=", " = "]))
        self._value(value, where)

    def _value(self, value: Any, where: Where) -> None:
        if isinstance(value, dict):
            self._put("{")
            for index, (key, inner) in enumerate(value.items()):
                self._put(", " if index else " ")
                self._pair(key, inner, where)
            self._put("}")
        elif isinstance(value, list):
            self._put("[")
            for index, inner in enumerate(value):
                self._gap()
                self._note((*where, index))
                self._value(inner, (*where, index))
                self._put(self._dice.choice([",", " ,", ", # ] {\n"]))
            self._gap()
            self._put("]")
        else:
            self._put(self._scalar(value))

    def _scalar(self, value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, str):
            return self._string(value)
        return str(value)

    def _string(self, value: str) -> str:
        plain = all(c.isprintable() and c != "'" for c in value)
        style = self._dice.choice(["basic", "long", "literal", "long literal"])
        if plain and style == "literal":
            return f"'{value}'"
        if plain and style == "long literal":
            return f"'''\n{value}'''"
        if style == "long":
            return (
                '"""\n' + escaped(value).replace('\\"', '"').replace('""', '\\""').replace("\\u000a", "\n") + '\\\n"""'
            )
        return f'"{escaped(value)}"'

    def _key(self, key: str) -> str:
        if key.isascii() and key.isalnum() and self._dice.random() < 0.5:
            return key
        return f'"{escaped(key)}"'

    def _gap(self) -> None:
        self._put(self._dice.choice(["", "", "\n", " # [x] = 'y'\n", "\t\n\n"]))

    def _put(self, text: str) -> None:
        self.text += text

    def _note(self, where: Where) -> None:
        self.lines.setdefault(where, self.text.count("\n") + 1)


def escaped(text: str) -> str:
    return "".join(c if c.isprintable() and c not in '"\\' else escape(c) for c in text)


def escape(c: str) -> str:
    return "\\" + c if c in '"\\' else f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}"
