"""SPF trees by the hundred: the counts are those of a plain recursive reading, the faults those of pyspf."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any, NamedTuple

import pytest
import spf

from jobs.dns.records.spf_target import read
from jobs.dns.records.spf_tree import Tree, walk
from tests.jobs.dns.book import Book

LEVELS = 5
TREES = 250
STRANGER = "198.18.0.1"
"""An address that no record allows, so that a receiver has to read the whole tree."""

TARGET = read("include:us.example")


def name(level: int) -> str:
    return f"n{level}.example"


WORDS = (
    *("ip4:192.0.2.1", "ip6:2001:db8::1", "ip4:192.0.2.0/24", "a:host.example", "mx:mail.example", "-all"),
    *("a:gone.example", "mx:gone.example/24", "exists:gone.example", "include:gone.example"),
)


def book_of(dice: Random) -> Book:
    """Records include only those of higher levels, so that no tree is endless.  One in eight names has two records."""
    book = Book()
    for level in range(LEVELS):
        book.put(name(level), "TXT", [record(level, dice) for _ in range(2 if level and dice.random() < 1 / 8 else 1)])
    book.put(name(LEVELS), "TXT", dice.choice(["v=spf1 -all", "v=spf1", "no spf"]))
    book.put("host.example", "A", "192.0.2.7")
    book.put("mail.example", "MX", ["10 host.example"])
    return book


def record(level: int, dice: Random) -> str:
    """A redirect comes last and never beside an `all`: there pyspf counts it, though RFC 7208 (6.1) has it ignored."""
    words = [word(level, dice) for _ in range(dice.randrange(6))]
    redirect = [f"redirect={name(dice.randint(level + 1, LEVELS))}"] if dice.random() < 1 / 4 else []
    return " ".join(["v=spf1", *words, *([] if "-all" in words else redirect)])


def word(level: int, dice: Random) -> str:
    return f"include:{name(dice.randint(level + 1, LEVELS))}" if dice.random() < 1 / 2 else dice.choice(WORDS)


class Count(NamedTuple):
    lookups: int
    voids: int
    faults: int


def counted(book: Book, domain: str) -> Count:
    """The whole tree read as plainly as can be, with no regard for limits."""
    [text] = [value for value in book.look_up(domain, "TXT").values if value.startswith("v=spf1")]
    words = text.split()[1:]
    if "-all" in words:
        words = words[: words.index("-all")]
    lookups = voids = faults = 0
    for word in words:
        if word.startswith("ip"):
            continue
        lookups += 1
        kind, _, rest = word.replace("=", ":").partition(":")
        target = rest.partition("/")[0]
        answer = book.look_up(target, {"a": "A", "exists": "A", "mx": "MX"}.get(kind, "TXT"))
        voids += answer.outcome != "answer"
        if kind in ("include", "redirect"):
            if len([value for value in answer.values if value.startswith("v=spf1")]) == 1:
                below = counted(book, target)
                lookups, voids, faults = lookups + below.lookups, voids + below.voids, faults + below.faults
            else:
                faults += 1
    return Count(lookups, voids, faults)


async def tree_of(book: Book) -> Tree:
    return await walk(name(0), book.look_up(name(0), "TXT").values[0], TARGET, book.ask)


@pytest.mark.parametrize("block", range(4))
async def test_lookups_and_voids_are_counted_as_a_plain_reading_counts_them(block: int) -> None:
    for seed in range(block * TREES, (block + 1) * TREES):
        book = book_of(Random(seed))
        tree, plain = await tree_of(book), counted(book, name(0))
        within = plain.lookups <= 10 and plain.voids <= 2
        assert tree.complete == within, seed
        if within:
            assert Count(tree.lookups, tree.voids, len(tree.faults)) == plain, seed
        else:
            assert tree.faults[-1].reason in ("too_many_lookups", "too_many_voids"), seed
            assert tree.lookups == 11 or tree.voids == 3, seed


@pytest.mark.parametrize("block", range(4))
async def test_receivers_say_permerror_exactly_where_we_find_a_fault(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(block * TREES, (block + 1) * TREES):
        book = book_of(Random(seed))
        tree = await tree_of(book)
        monkeypatch.setattr(spf, "DNSLookup", partial(answered, book))
        query = spf.query(i=STRANGER, s=f"post@{name(0)}", h="mail.example", strict=True)
        result, _, _ = query.check()
        assert (result == "permerror") == bool(tree.faults), seed
        if not tree.faults:
            assert (query.lookups, query.void_lookups) == (tree.lookups, tree.voids), seed


def answered(book: Book, domain: str, rdtype: str, *_: object) -> list[tuple[tuple[str, str], Any]]:
    """In the form in which pyspf takes answers."""
    values = book.look_up(domain, rdtype).values
    match rdtype:
        case "TXT":
            return [((domain, rdtype), (value.encode(),)) for value in values]
        case "MX":
            return [((domain, rdtype), (int(value.split()[0]), value.split()[1])) for value in values]
        case _:
            return [((domain, rdtype), value) for value in values]
