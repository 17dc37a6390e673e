"""What the owner of a domain reads: in plain words, what was expected, what was found, on which server, until when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from jobs.dns.evidence import Evidence
from jobs.dns.expectation import Wanted
from jobs.dns.finding import Finding
from jobs.dns.sighting import Sighting
from jobs.dns.verdict import Verdict
from jobs.sentence import sentence

SHOWN_CHARACTERS = 80
SHOWN_VALUES = 3
SHOWN_SERVERS = 4

_THERE = {
    "TOKEN": "the verification token at {name}",
    "SPF": "the SPF record of {name}",
    "DKIM": "the DKIM key at {name}",
    "DMARC": "the DMARC record at {name}",
    "CAA": "the CAA policy of {name}",
    "NS": "the set of name servers of {name}",
}

_SILENCE = {
    "timeout": "did not answer",
    "servfail": "answered with a failure (SERVFAIL)",
    "refused": "refused to answer (REFUSED)",
    "lame": "does not know the zone (lame delegation)",
    "unreachable": "could not be reached",
    "truncated": "sent a truncated answer",
    "no_route": "has no address that can be reached from here",
    "no_address": "has no address",
    "address_unknown": "has an address that nobody could tell",
    "bogus": "finds its DNSSEC broken",
    "disagree": "depends on a record about which its own servers disagree",
    "malformed": "sent an answer that cannot be read",
    "cname_loop": "answered with CNAMEs that go in a circle",
    "blocked": "has an address that must not be asked",
    "budget": "was not asked, since the check had asked enough",
    "too_large": "shows a record that is too long to be read",
    "too_deep": "is asked about a name with too many labels",
    "macro": "shows a record that depends on each message",
}

_WRONG = {
    "not_lowest": "mail goes to another server first; give {expected} the lowest preference of all",
    "other_preference": "it is there with another preference",
    "null_mx": "the domain says that it takes no mail (a null MX)",
    "apex": "the name is the top of a zone, where no CNAME can be; use your provider's ALIAS, or address records",
    "address_instead": "there are addresses in place of the CNAME; a proxy or a flattened CNAME hides it, so switch "
    "the proxy off for this name",
    "cname_loop": "its CNAMEs go in a circle",
    "chain_too_long": "its chain of CNAMEs is too long",
    "several_records": "there are several such records where only one may be, so receivers heed none; make them one",
    "quoted": 'quotation marks stand inside the text of the record; take them away, it must begin with "v="',
    "syntax": "the SPF record at {at} cannot be read: {detail}",
    "broken_include": "{detail} leads to {at}, which has no SPF record of its own or several",
    "too_many_lookups": "it takes more than 10 DNS lookups to read, so receivers give up (at {detail} of {at})",
    "too_many_voids": "more than 2 of its lookups find nothing, so receivers give up (the last: {detail})",
    "too_many_mx": "{detail} names more than 10 mail servers, so receivers give up",
    "include_loop": "it includes itself: {detail}",
    "not_included": "nothing in it allows {expected}",
    "not_allowing": "{expected} is there, but it, or what leads to it, has a sign that does not allow it; take it away",
    "after_all": "{expected} stands where nobody looks, behind “all”; put it before",
    "not_a_key": "what stands there is no DKIM key: {detail}",
    "revoked": "the key is revoked (its p= is empty)",
    "other_key_type": "it is a key of another type (k=)",
    "no_sha256": "its h= does not allow SHA-256",
    "not_for_mail": "its s= does not allow mail",
    "invalid_policy": "its policy is none that receivers know, so they ignore the record",
    "weak_policy": "its policy ({tag}={policy}, at {at}) is weaker than {expected}",
    "testing": "t=y asks receivers not to apply its policy yet; take it away",
    "forbidden": "the CAA records at {at} do not allow {expected} to issue certificates; add 0 issue “{expected}”",
    "critical": "the CAA records at {at} hold a critical property that certificate authorities do not know",
    "changed": "it is another than at the last check",
}


def tell(wanted: Wanted, sighting: Sighting, evidence: Evidence, verdict: Verdict, state: str) -> str:
    """One to three sentences for a conclusion."""
    what = there(wanted)
    match state:
        case "match":
            text = [f"{what} is right{_seen(evidence)}", *_silent(evidence), *_stale(evidence)]
        case "spreading" if verdict == "match":
            text = [f"{what} is right on your name servers and spreading{_by(evidence.visible_by)}", *_silent(evidence)]
        case "spreading":
            text = [f"{what} is right on {_list(evidence.matching)}", *_silent(evidence), *_stale(evidence)]
        case "servers_disagree":
            text = [_disagreement(what, evidence), *_silent(evidence)]
        case "mismatch" | "absent":
            text = [_wrong(wanted, evidence, verdict), *_each(evidence), *_silent(evidence), *_broken(sighting)]
        case "authority_unreachable":
            text = _unreachable(wanted, evidence, verdict)
        case "dnssec_broken":
            text = [_dnssec(wanted, sighting), *_silent(evidence)]
        case _:
            text = _nobody_knows(what, evidence)
    return " ".join(f"{sentence(words)}." for words in text)


def delegation(sighting: Sighting) -> tuple[str, ...]:
    """Name servers that only one side knows: it works for now, until a resolver asks the one that is no more."""
    zone, parent, own = sighting.zone, sighting.only_parent, sighting.only_zone
    extra = [f"the delegation of {zone} names {_list(parent)}, which the zone itself does not"] if parent else []
    lacking = [f"{zone} itself names {_list(own)}, which its delegation does not"] if own else []
    return (*extra, *lacking)


def there(wanted: Wanted) -> str:
    return _THERE.get(wanted.type, "the {type} record of {name}").format(type=wanted.type, name=wanted.name)


def said(finding: Finding) -> str:
    """What one server said, in a word: match, or why not."""
    return finding.reason or finding.verdict


def why(wanted: Wanted, finding: Finding) -> str:
    """What is wrong with what was found, expected beside found."""
    expected = wanted.value if wanted.type != "TOKEN" else f"token={wanted.value}"
    reason = _WRONG.get(finding.reason, "")
    facts = {"at": "", "detail": "", "tag": "", "policy": "", **finding.facts, "expected": expected}
    beside = f"expected {_quoted([expected])}, found {_quoted(finding.found)}"
    return f"{reason.format(**facts)} ({beside})" if reason else beside


def _wrong(wanted: Wanted, evidence: Evidence, verdict: Verdict) -> str:
    finding = evidence.shown(verdict)
    if finding is None or verdict == "absent":
        return f"{there(wanted)} is not there ({_negative(finding)}); expected {_quoted([_expected(wanted)])}"
    return f"{there(wanted)} is not as it should be: {why(wanted, finding)}"


def _expected(wanted: Wanted) -> str:
    return f"token={wanted.value}" if wanted.type == "TOKEN" else wanted.value


def _negative(finding: Finding | None) -> str:
    match finding.reason if finding else "":
        case "nxdomain":
            return "the name does not exist"
        case "nodata":
            return "the name has no record of this type"
        case _:
            return "other records stand under its name, but not this one"


def _disagreement(what: str, evidence: Evidence) -> str:
    wrong = [f"{name} {_lacks(verdict)}" for name, verdict in evidence.contradicting.items()]
    return f"your name servers disagree about {what}: {_list(wrong)}, while {_list(evidence.matching)} {_has(evidence)}"


def _lacks(verdict: Verdict) -> str:
    return "lacks it" if verdict == "absent" else "has another value"


def _has(evidence: Evidence) -> str:
    return "has it" if len(evidence.matching) == 1 else "have it"


def _seen(evidence: Evidence) -> str:
    """Where a match was seen: on how many servers, and by how many resolvers, as far as either was asked."""
    asked = len(evidence.agreeing) + len(evidence.stale) + len(evidence.mute)
    servers = f" on {_list(evidence.matching)}" if evidence.matching else ""
    resolvers = f", and {len(evidence.agreeing)} of {asked} resolvers see it" if evidence.agreeing else ""
    return servers + resolvers


def _silent(evidence: Evidence) -> list[str]:
    said = [f"{name} {_silence(reason)}" for name, reason in evidence.silent.items()]
    return [_list(said) if said[0].startswith("the ") else f"the name server {_list(said)}"] if said else []


def _each(evidence: Evidence) -> list[str]:
    """Who says what, where not all that contradict say the same."""
    said = [f"{name} {_lacks(verdict)}" for name, verdict in evidence.contradicting.items()]
    return [f"of your name servers, {_list(said)}"] if len(set(evidence.contradicting.values())) > 1 else []


def _silence(reason: str) -> str:
    return _SILENCE.get(reason, f"answered with {reason}")


def _stale(evidence: Evidence) -> list[str]:
    if not evidence.stale:
        return []
    return [f"some resolvers ({_list(evidence.stale)}) still have an older answer{_by(evidence.visible_by, 'until')}"]


def _by(time: datetime | None, word: str = "; visible everywhere by") -> str:
    gap = "" if word.startswith(";") else " "
    return f"{gap}{word} {time:%Y-%m-%d %H:%M} UTC" if time else ""


def _unreachable(wanted: Wanted, evidence: Evidence, verdict: Verdict) -> list[str]:
    what = there(wanted)
    silent = _silent(evidence) or ["none of your name servers could be found"]
    match verdict:
        case "match":
            return [f"resolvers see {what} as it should be", *silent]
        case "indeterminate" if evidence.matching:
            return [f"{what} is right on {_list(evidence.matching)}", *silent, _HELD]
        case "indeterminate":
            wrong = [f"{name} {_lacks(said)}" for name, said in evidence.contradicting.items()]
            return [f"about {what} no answer is certain: {_list(wrong)}", *silent, _HELD]
        case _:
            return [f"as resolvers see it, {_wrong(wanted, evidence, verdict)}", *silent]


def _dnssec(wanted: Wanted, sighting: Sighting) -> str:
    zone = sighting.zone or wanted.domain
    return (
        f"the DNSSEC of {zone} is broken: resolvers that check signatures refuse {there(wanted)}, and show it only "
        "when told not to check; renew the signatures of the zone, or correct the DS record at your registrar"
    )


def _broken(sighting: Sighting) -> list[str]:
    return ["Besides, its DNSSEC is broken"] if sighting.bogus else []


_HELD = "this is not held against the domain, and is looked at again"


def _nobody_knows(what: str, evidence: Evidence) -> list[str]:
    if evidence.agreeing or evidence.stale:
        return [
            f"too few resolvers agree about {what}: {len(evidence.agreeing)} see it as it should be, "
            f"{len(evidence.stale)} do not, {len(evidence.mute)} could not tell",
            _HELD,
        ]
    reasons = {**{name: _silence(reason) for name, reason in evidence.silent.items()}, **_mute(evidence)}
    servers = _list(f"{name} {reason}" for name, reason in reasons.items())
    return [f"nobody could say anything about {what}" + (f": {servers}" if servers else ""), _HELD]


def _mute(evidence: Evidence) -> Mapping[str, str]:
    return {server: _silence(reason) for server, reason in evidence.mute.items()}


def _quoted(values: Iterable[str]) -> str:
    found = list(values)
    shown = [f"“{_cut(value)}”" for value in found[:SHOWN_VALUES]]
    more = [f"{len(found) - SHOWN_VALUES} more"] if len(found) > SHOWN_VALUES else []
    return _joined([*shown, *more]) or "nothing"


def _list(words: Iterable[str]) -> str:
    found = list(words)
    more = [f"{len(found) - SHOWN_SERVERS} more"] if len(found) > SHOWN_SERVERS else []
    return _joined([*found[:SHOWN_SERVERS], *more])


def _joined(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def _cut(value: str) -> str:
    """Both ends of a long value: keys and SPF records differ at their ends, if anywhere."""
    half = SHOWN_CHARACTERS // 2
    return value if len(value) <= SHOWN_CHARACTERS else f"{value[:half]}…{value[-half:]}"
