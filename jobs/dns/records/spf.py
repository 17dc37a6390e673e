"""SPF: our servers may send in the domain's name, and no receiver will give up before it has seen so (RFC 7208)."""

from __future__ import annotations

from typing import Any

from jobs.dns.answer import Answer
from jobs.dns.records import spf_record, spf_target, spf_tree, text
from jobs.dns.records.spf_tree import Tree
from jobs.dns.verdict import Ask, Judged, match, mismatch, missing, unknown


async def judge(name: str, value: str, answer: Answer, ask: Ask) -> Judged:
    """One record "v=spf1", which allows `value` somewhere in its tree, and a tree that receivers can walk.

    A fault anywhere in the tree is a mismatch though ours may stand before it, for it is met by the domain's other
    mail, and by all mail at receivers that read the whole tree first.  An answer that is missing is not: as long as
    ours has been seen the verdict is a match, and while it has not, one that is unknown.

    Reasons: no_record (absent), several_records, quoted, syntax, too_many_lookups, too_many_voids, too_many_mx,
    include_loop, broken_include (no_record or several_records further down), not_included, not_allowing (by its
    qualifier), after_all, macro (what decides depends on the message: cannot be judged), too_large (nor that).  Facts:
    lookups, voids, complete (false: the counts are "at least"), path (the domains by way of which ours is allowed).
    """
    found = spf_tree.records(answer)
    if len(found) > 1:
        return mismatch("several_records", count=len(found))
    if not found:
        return _no_record(answer)
    tree = await spf_tree.walk(name, found[0], spf_target.read(value), ask)
    return _judge_tree(name, tree)


def _judge_tree(name: str, tree: Tree) -> Judged:
    facts: dict[str, Any] = {"lookups": tree.lookups, "voids": tree.voids, "complete": tree.complete}
    if tree.path is not None:
        facts["path"] = list(tree.path)
    notes = _notes(tree)
    if tree.faults:
        fault = tree.faults[0]
        below = fault.domain != name and fault.reason in ("no_record", "several_records")
        reason = "broken_include" if below else fault.reason
        return mismatch(reason, notes, **facts, at=fault.domain, detail=fault.detail)
    if tree.path is not None:
        return match(notes, **facts)
    if tree.unread:
        return unknown(next(iter(tree.unread.values())), notes, **facts)
    if tree.macros:
        return unknown("macro", notes, **facts)
    return mismatch(tree.denied or "not_included", notes, **facts)


def _notes(tree: Tree) -> list[str]:
    unread = [f"the record of {domain} could not be read ({reason})" for domain, reason in sorted(tree.unread.items())]
    macros = [f"{term} depends on the message, so what it allows is not known" for term in tree.macros]
    return list(dict.fromkeys([*tree.notes, *unread, *macros]))


def _no_record(answer: Answer) -> Judged:
    """Quotation marks inside the text hide a record from receivers."""
    if any(spf_record.is_record(text.unquoted(value)) for value in answer.values):
        return mismatch("quoted")
    return missing(answer)
