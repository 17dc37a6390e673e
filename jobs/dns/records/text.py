"""TXT: the text as people mean it, however it is quoted, split and spaced."""

from __future__ import annotations

import re

LONGEST = 16_384
"""Characters of one record that are read tag by tag or term by term.  A TXT may have 65,535, and reading so many would
keep everything else waiting; no receiver of mail would read half of it."""

_QUOTED = re.compile(r'\s*(?:"[^"]*"\s*)+')


def not_empty(value: str) -> str:
    """`value` in the form of `plain`; ValueError if nothing is left."""
    if not (text := plain(value)):
        raise ValueError("a TXT value must not be empty")
    return text


def plain(text: str) -> str:
    """Quoted strings joined, runs of white space one: publishers paste quotes into forms that add their own."""
    return " ".join(unquoted(text).split())


def unquoted(text: str) -> str:
    return "".join(re.findall(r'"([^"]*)"', text)) if _QUOTED.fullmatch(text) else text
