"""What people read begins with a capital letter, and names in it keep theirs."""

from __future__ import annotations


def sentence(text: str) -> str:
    """`text` as a sentence begins.  A first word that is more than letters is a name ("ns1.shop.example") or a value,
    which somebody may have to find, copy or compare: it stays as it is."""
    return f"{text[:1].upper()}{text[1:]}" if text.partition(" ")[0].isalpha() else text
