"""Senders that were rewritten find home, and nobody else's do."""

from __future__ import annotations

import random
import string

import pytest

from jobs.email.srs import Refused, Srs

DAY_S = 86_400.0
NOW = 20_000 * DAY_S

pytestmark = pytest.mark.req("BJ-03")


def srs(*secrets: str, domain: str = "ours.example") -> Srs:
    return Srs(domain, secrets or ("s1",))


def rewritten(sender: str, by: Srs | None = None, now_s: float = NOW) -> str:
    found = (by or srs()).forward(sender, now_s)
    assert found is not None
    return found.wire


def test_addresses_come_back_as_they_were() -> None:
    dice = random.Random(3)
    letters = string.ascii_letters + string.digits + "!#$%&'*+/=?^_`{|}~-"
    for n in range(2000):
        local = "".join(dice.choices(letters, k=dice.randrange(1, 40)))
        if n % 3 == 0:
            local += "." + local
        address = f"{local}@{dice.choice(['x.example', 'a-b.c.example', 'xn--bcher-kva.example'])}"
        made = rewritten(address)
        assert made.startswith("SRS0=")
        assert made.endswith("@ours.example")
        assert srs().reverse(made, NOW + dice.randrange(21) * DAY_S) == address


@pytest.mark.parametrize(
    "address", ['"john doe"@x.example', '"a@b"@x.example', '"a\\"b\\\\c"@x.example', "é@x.example"]
)
def test_local_parts_that_need_quotes_keep_them(address: str) -> None:
    assert srs().reverse(rewritten(address), NOW) == address


def test_the_null_path_and_our_own_addresses_stay_what_they_are() -> None:
    assert srs().forward("", NOW) is None
    assert rewritten("jane@OURS.example") == "jane@ours.example"


def test_what_somebody_else_rewrote_leads_back_to_the_first_of_them() -> None:
    theirs = srs("t", domain="theirs.example")
    first = rewritten("jane@x.example", theirs)
    second = rewritten(first)
    assert second.startswith("SRS1=")
    assert srs().reverse(second, NOW) == first
    third = rewritten(second, srs("u", domain="third.example"))
    assert srs("u", domain="third.example").reverse(third, NOW) == first
    plus = "SRS0+abc=de=y.example=ann@plus.example"
    assert "=plus.example=+abc=de" in rewritten(plus)
    assert srs().reverse(rewritten(plus), NOW) == plus


def test_case_is_no_matter_for_the_hash_and_kept_where_it_can_be() -> None:
    made = rewritten("Jane@x.example")
    assert srs().reverse(made, NOW) == "Jane@x.example"
    assert srs().reverse(made.lower(), NOW) == "jane@x.example"


@pytest.mark.parametrize("sender", ["jane@x.example", "SRS0=abcd=EF=y.example=ann@theirs.example"])
def test_a_letter_that_was_changed_is_a_forgery(sender: str) -> None:
    made = rewritten(sender)
    local, _, domain = made.partition("@")
    for at in range(5, len(local)):
        for letter in "aQ7=":
            forged = f"{local[:at]}{letter}{local[at + 1 :]}@{domain}"
            if forged.lower() != made.lower():
                with pytest.raises(Refused):
                    srs().reverse(forged, NOW)


def test_an_address_is_good_for_21_days_and_as_long_as_its_secret() -> None:
    made = rewritten("jane@x.example", srs("old"))
    assert srs("new", "old").reverse(made, NOW + 21 * DAY_S) == "jane@x.example"
    assert rewritten("jane@x.example", srs("new", "old")) != made
    with pytest.raises(Refused, match="22 days old"):
        srs("old").reverse(made, NOW + 22 * DAY_S)
    with pytest.raises(Refused, match="not ours"):
        srs("new").reverse(made, NOW)
    across = rewritten("jane@x.example", now_s=1023 * DAY_S)  # where the days begin anew
    assert srs().reverse(across, 1030 * DAY_S) == "jane@x.example"


@pytest.mark.parametrize(
    "address",
    ["jane@ours.example", "SRS0=@ours.example", "SRS0=a=b@ours.example", "SRS1=a==b@ours.example",
     "SRS0=a=b=c=d@x.example", "", "@", "SRS0=AAAAAAAA=AA=x.example=jane@ours.example",
     "SRS0=\r\n=AA=x.example=jane@ours.example"],
)  # fmt: skip
def test_what_is_no_address_of_ours_is_refused(address: str) -> None:
    with pytest.raises(Refused):
        srs().reverse(address, NOW)
