"""How long a text is on its way: GSM 03.38's seven bits where they suffice, else UCS-2, in one part or several."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

Alphabet = Literal["text", "unicode"]
"""As providers call them: seven bits, sixteen bits."""

_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENDED = frozenset("\f^{}\\[~]|€")
"""An escape and a character: two places, which are not parted."""

_SIZES = {"text": (160, 153), "unicode": (70, 67)}
"""Places of a text in one part, and of each of several, which have a header."""


def alphabet(text: str) -> Alphabet:
    return "text" if _BASIC.union(_EXTENDED).issuperset(text) else "unicode"


def parts(text: str) -> int:
    """In how many parts it is sent, and charged for."""
    of = alphabet(text)
    alone, each = _SIZES[of]
    places = [_places(char, of) for char in text]
    return 1 if sum(places) <= alone else _filled(places, each)


def _places(char: str, of: Alphabet) -> int:
    return 1 + (char in _EXTENDED if of == "text" else ord(char) > 0xFFFF)


def _filled(places: Iterable[int], each: int) -> int:
    """A character of two places that does not fit goes whole into the next part."""
    count, used = 1, 0
    for size in places:
        if used + size > each:
            count, used = count + 1, 0
        used += size
    return count
