"""The tree of a domain's SPF: all it includes or redirects to, counted as receivers count (RFC 7208, 4.6.4)."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field

from jobs.dns.answer import Answer
from jobs.dns.records import spf_record
from jobs.dns.records.spf_record import ASKING, Term
from jobs.dns.records.spf_target import Network, Target
from jobs.dns.records.text import LONGEST
from jobs.dns.verdict import Ask

LOOKUPS_MAX = 10
VOIDS_MAX = 2
MX_MAX = 10

_LIMITS = frozenset({"too_many_lookups", "too_many_voids", "include_loop"})


@dataclass(frozen=True, slots=True)
class Fault:
    """What makes receivers say permerror, where, and the words of it."""

    reason: str
    domain: str
    detail: str = ""


@dataclass(slots=True, kw_only=True)
class Tree:
    """What a walk has found so far, which is all there is to tell where it had to stop.

    `path`: the domains by way of which the target is allowed, None where it is not.  `denied`: why a term that names
    the target allows nothing.  `unread`: domain → why its record could not be read.  `macros`: terms whose meaning
    depends on the message.  `complete`: the counts are those of the whole tree.
    """

    lookups: int = 0
    voids: int = 0
    path: tuple[str, ...] | None = None
    denied: str = ""
    faults: list[Fault] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)
    macros: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    complete: bool = True


class _Stop(Exception):
    """A limit is reached: receivers go no further, and neither do we."""


async def walk(domain: str, record: str, target: Target, ask: Ask) -> Tree:
    """The tree below `record`, which stands at `domain`, searched for `target`.

    Questions are asked for all terms of a record at once, but counted one after the other, in the order of the record.
    """
    walker = _Walk(target, ask)
    try:
        await walker.visit((domain,), record, True)
    except _Stop:
        walker.tree.complete = False
    return walker.tree


def records(answer: Answer) -> list[str]:
    return [value for value in answer.values if spf_record.is_record(value)]


class _Walk:
    def __init__(self, target: Target, ask: Ask) -> None:
        self.tree = Tree()
        self._target = target
        self._ask = ask
        self._answers: dict[tuple[str, str], Answer] = {}

    async def visit(self, path: tuple[str, ...], record: str, passes: bool) -> None:
        """`passes`: a match in this record is a pass of the whole, so no term on the way here denies it."""
        domain = path[-1]
        if len(record) > LONGEST:
            self.tree.complete = False
            self.tree.unread[domain] = "too_large"
            return
        try:
            written = spf_record.read(record)
        except ValueError as error:
            self._fault("syntax", domain, str(error))
            return
        terms = _in_force(written)
        heeded = set(map(id, terms))
        self._note_ignored(term for term in written if id(term) not in heeded)
        await self._fetch(domain, terms)
        for term in terms:
            await self._take(path, term, passes)

    async def _take(self, path: tuple[str, ...], term: Term, passes: bool) -> None:
        if term.kind in ASKING:
            self.tree.lookups += 1
            if self.tree.lookups > LOOKUPS_MAX:
                self._fault("too_many_lookups", path[-1], term.text)
        if term.macro:
            self._cannot_read(term)
            return
        domain = term.domain or path[-1]
        match term.kind:
            case "include" | "redirect":
                await self._descend(path, domain, term, passes)
            case "ip4" | "ip6":
                self._compare(path, term, passes, [term.network] if term.network else [])
            case "a" | "exists":
                await self._addresses(path, domain, term, passes)
            case "mx":
                await self._exchanges(path, domain, term, passes)
            case "ptr":
                self._note_reverse(term)
            case "all":
                self._note_everybody(path, term, passes)

    async def _descend(self, path: tuple[str, ...], domain: str, term: Term, passes: bool) -> None:
        ours = domain == self._target.domain
        if ours and not (term.passes and passes):
            self.tree.denied = self.tree.denied or "not_allowing"
        answer = await self._answer(domain, "TXT")
        if answer.outcome == "error":
            self.tree.complete = False
            self.tree.unread[domain] = answer.reason
        elif answer.outcome != "answer":
            self._void(domain, term)
            self._fault("no_record", domain, term.text)
        else:
            await self._enter(path, domain, term, passes and term.passes, records(answer))
        if ours and term.passes and passes:
            self._reached((*path, domain))

    async def _enter(self, path: tuple[str, ...], domain: str, term: Term, passes: bool, found: list[str]) -> None:
        """Whom a record names that has none, or two, gets a permerror (RFC 7208, 5.2 and 6.1)."""
        if len(found) != 1:
            self._fault("several_records" if found else "no_record", domain, term.text)
        elif domain in path:
            self._fault("include_loop", domain, " → ".join((*path, domain)))
        else:
            await self.visit((*path, domain), found[0], passes)

    async def _addresses(self, path: tuple[str, ...], domain: str, term: Term, passes: bool) -> None:
        """Void only where neither an IPv4 nor an IPv6 sender would find an address: receivers ask for one of both, by
        the sender's.  `exists` always asks for A (5.7)."""
        both = [await self._answer(domain, "A")]
        if term.kind == "a" and (both[0].outcome != "answer" or self._wants_six()):
            both.append(await self._answer(domain, "AAAA"))
        if all(answer.outcome in ("nxdomain", "nodata") for answer in both):
            self._void(domain, term)
        if term.kind == "exists":
            self._note_everybody(path, term, passes and both[0].outcome == "answer")
            return
        for answer in both:
            self._hidden(domain, answer)
            self._compare(path, term, passes, _networks(term, answer.values))

    async def _exchanges(self, path: tuple[str, ...], domain: str, term: Term, passes: bool) -> None:
        answer = await self._answer(domain, "MX")
        self._hidden(domain, answer)
        if answer.outcome in ("nxdomain", "nodata"):
            self._void(domain, term)
        if len(answer.values) > MX_MAX:
            self._fault("too_many_mx", domain, term.text)
            return
        if self._target.network is None:
            return
        hosts = [value.split(" ", 1)[1] for value in answer.values]
        rdtype = "A" if self._target.network.version == 4 else "AAAA"
        for host in (host for host in hosts if host != "."):
            found = await self._answer(host, rdtype)
            self._hidden(host, found)
            self._compare(path, term, passes, _networks(term, found.values))

    def _note_everybody(self, path: tuple[str, ...], term: Term, passes: bool) -> None:
        """`+all`, and an `exists` without macros, let everybody in."""
        if passes and term.passes:
            self.tree.notes.append(f"{term.text} at {path[-1]} lets everybody send in this domain's name")

    def _compare(self, path: tuple[str, ...], term: Term, passes: bool, networks: Iterable[Network]) -> None:
        wanted = self._target.network
        if wanted is None or not any(_within(wanted, network) for network in networks):
            return
        if term.passes and passes:
            self._reached(path)
        else:
            self.tree.denied = self.tree.denied or "not_allowing"

    def _reached(self, path: tuple[str, ...]) -> None:
        self.tree.path = self.tree.path or path

    def _wants_six(self) -> bool:
        return self._target.network is not None and self._target.network.version == 6

    def _cannot_read(self, term: Term) -> None:
        """A macro hides a record from a search for an include, and anything from a search for an address."""
        if self._target.network is not None or term.kind in ("include", "redirect"):
            self.tree.macros.append(term.text)
        self.tree.complete = self.tree.complete and term.kind not in ("include", "redirect")

    def _note_reverse(self, term: Term) -> None:
        """What `ptr` allows depends on the reverse names of each sender."""
        self.tree.notes.append("ptr is slow and not to be used any more (RFC 7208, 5.5)")
        if self._target.network is not None:
            self.tree.macros.append(term.text)

    def _hidden(self, domain: str, answer: Answer) -> None:
        """An address that could not be asked for may be ours; an include is not hidden by it."""
        if answer.outcome == "error":
            self.tree.complete = False
            if self._target.network is not None:
                self.tree.unread[domain] = answer.reason

    def _note_ignored(self, terms: Iterable[Term]) -> None:
        """What stands behind `all`, or redirects beside it, is never looked at (5.1)."""
        wanted = self._target
        for term in terms:
            named = wanted.domain is not None and term.domain == wanted.domain and term.kind in ("include", "redirect")
            held = wanted.network is not None and term.network is not None and _within(wanted.network, term.network)
            if named or held:
                self.tree.denied = self.tree.denied or "after_all"

    def _void(self, domain: str, term: Term) -> None:
        self.tree.voids += 1
        if self.tree.voids > VOIDS_MAX:
            self._fault("too_many_voids", domain, term.text)

    def _fault(self, reason: str, domain: str, detail: str) -> None:
        self.tree.faults.append(Fault(reason, domain, detail))
        if reason in _LIMITS:
            raise _Stop

    async def _fetch(self, domain: str, terms: tuple[Term, ...]) -> None:
        """The first question of each term, all at once, but no more than the limit leaves to be counted."""
        left = LOOKUPS_MAX - self.tree.lookups
        asking = [term for term in terms if term.kind in ASKING and term.kind != "ptr"][: max(left, 0)]
        questions = {(term.domain or domain, _first_type(term)) for term in asking if not term.macro}
        async with asyncio.TaskGroup() as group:
            for question in sorted(questions - self._answers.keys()):
                group.create_task(self._answer(*question))

    async def _answer(self, name: str, rdtype: str) -> Answer:
        """Each name once: a tree that includes a domain twice counts it twice, but asks for it once."""
        if (name, rdtype) not in self._answers:
            self._answers[name, rdtype] = await self._ask(name, rdtype)
        return self._answers[name, rdtype]


def _in_force(terms: tuple[Term, ...]) -> tuple[Term, ...]:
    """The mechanisms up to `all`; without one, all of them and then the redirect, wherever it stands (6.1)."""
    for index, term in enumerate(terms):
        if term.kind == "all":
            return tuple(term for term in terms[: index + 1] if term.kind != "redirect")
    return tuple(sorted(terms, key=lambda term: term.kind == "redirect"))


def _first_type(term: Term) -> str:
    return {"include": "TXT", "redirect": "TXT", "mx": "MX"}.get(term.kind, "A")


def _networks(term: Term, addresses: Iterable[str]) -> list[Network]:
    found: list[Network] = []
    for address in addresses:
        four = ":" not in address
        prefix = term.prefix4 if four else term.prefix6
        found.append(
            ipaddress.IPv4Network((address, prefix), strict=False)
            if four
            else ipaddress.IPv6Network((address, prefix), strict=False)
        )
    return found


def _within(wanted: Network, network: Network) -> bool:
    if isinstance(wanted, ipaddress.IPv4Network) and isinstance(network, ipaddress.IPv4Network):
        return wanted.subnet_of(network)
    if isinstance(wanted, ipaddress.IPv6Network) and isinstance(network, ipaddress.IPv6Network):
        return wanted.subnet_of(network)
    return False
