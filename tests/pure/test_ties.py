"""The map of an account's tables: all of it is found, and children come before what they point to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.accounts.ties import KEEPS, Edge, strangers, ties

TABLES = ["accounts", *"abcdefg"]
EDGES = st.lists(
    st.builds(
        lambda child, parent, action, n: Edge(child, (f"{parent}_{n}",), parent, ("id",), action),
        st.sampled_from(TABLES),
        st.sampled_from(TABLES),
        st.sampled_from("acrnd-"),
        st.integers(0, 1),
    ),
    max_size=25,
    unique=True,
)


def belonging(edges: list[Edge]) -> set[str]:
    """A plain model: tables whose rows go with an account, round after round, and those that name one and stay."""
    named = {e.child for e in edges if e.parent == "accounts" and e.child != "accounts"}
    found = {e.child for e in edges if e.parent == "accounts" and e.action not in KEEPS} - {"accounts"}
    while (
        more := {e.child for e in edges if e.parent in found and e.action not in KEEPS and e.child != "accounts"}
        - found
    ):
        found |= more
    return found | named


@given(EDGES)
def test_every_table_that_holds_something_is_found_and_no_other(edges: list[Edge]) -> None:
    found = ties("accounts", edges)
    assert set(found.tables) == belonging(edges)
    assert len(found.tables) == len(set(found.tables))


@given(EDGES)
def test_children_come_before_what_they_point_to_unless_a_circle_was_cut(edges: list[Edge]) -> None:
    found = ties("accounts", edges)
    place = {table: number for number, table in enumerate(found.tables)}
    cut = {edge for holding in found.holdings for edge in holding.loops}
    for edge in edges:
        there = {edge.child, edge.parent} <= place.keys() and found.by_name[edge.parent].goes
        if there and edge.action not in KEEPS and edge not in cut:
            assert place[edge.child] < place[edge.parent], edge


@given(EDGES)
def test_a_table_that_says_whose_its_rows_are_is_asked_and_nothing_else(edges: list[Edge]) -> None:
    for holding in ties("accounts", edges).holdings:
        own = [e for e in edges if e.parent == "accounts" and e.child == holding.table]
        assert list(holding.own) == own
        assert not (holding.taking and holding.parents)
        assert holding.own or holding.parents, "no cut leaves a table that nobody owns"


@given(EDGES)
def test_rows_that_hang_on_others_alone_go_with_them(edges: list[Edge]) -> None:
    found = ties("accounts", edges)
    for holding in found.holdings:
        for edge in holding.parents:
            assert edge in found.dependents[edge.parent]


def test_what_hangs_on_rows_that_stay_stays() -> None:
    log = Edge("log", ("account_id",), "accounts", ("id",), "a")
    detail = Edge("detail", ("log_id",), "log", ("id",), "a")
    assert ties("accounts", [log, detail]).tables == ["detail", "log"]
    assert ties("accounts", [log, detail], kept={"log"}).tables == ["log"]


def test_a_row_stays_whose_foreign_key_lets_go_even_if_another_one_does_not() -> None:
    customer = Edge("tickets", ("customer_id",), "accounts", ("id",), "a")
    agent = Edge("tickets", ("agent_id",), "accounts", ("id",), "n")
    (holding,) = ties("accounts", [customer, agent]).holdings
    assert (holding.taking, holding.letting) == ((customer,), (agent,))


def test_a_row_that_lets_its_account_go_still_goes_with_what_it_hangs_on() -> None:
    message = Edge("messages", ("account_id",), "accounts", ("id",), "a")
    uploader = Edge("files", ("uploader_id",), "accounts", ("id",), "n")
    of = Edge("files", ("message_id",), "messages", ("id",), "a")
    found = ties("accounts", [message, uploader, of])
    assert found.by_name["files"].parents == (of,)
    assert found.dependents["messages"] == (of,)


@pytest.mark.parametrize("names", [("b", "c"), ("c", "b"), ("z", "a")])
def test_a_circle_is_cut_on_the_side_that_can_be_null_and_never_from_its_account(names: tuple[str, str]) -> None:
    one, other = names
    own = Edge("h", ("account_id",), "accounts", ("id",), "a", loose=False)
    root = Edge(one, ("h_id",), "h", ("id",), "a", loose=False)
    for there, back in ((True, False), (False, True)):
        to = Edge(other, ("one_id",), one, ("id",), "a", loose=there)
        fro = Edge(one, ("other_id",), other, ("id",), "a", loose=back)
        cut = {edge for holding in ties("accounts", [own, root, to, fro]).holdings for edge in holding.loops}
        assert cut == {fro}, "what hangs on nothing else is not cut off, whatever can be null"
    also = Edge(other, ("h_id",), "h", ("id",), "a", loose=False)
    for there, back in ((True, False), (False, True)):
        to = Edge(other, ("one_id",), one, ("id",), "a", loose=there)
        fro = Edge(one, ("other_id",), other, ("id",), "a", loose=back)
        cut = {edge for holding in ties("accounts", [own, root, also, to, fro]).holdings for edge in holding.loops}
        assert cut == {to if there else fro}


def test_a_key_that_is_an_accounts_own_makes_no_other_key_one() -> None:
    profile = Edge("profiles", ("id",), "accounts", ("id",), "a")
    columns = {"accounts": ["id"], "profiles": ["id"], "prices": ["id"]}
    assert strangers(ties("accounts", [profile]), columns, (), (), {"profiles": ["id"]}) == []


def test_a_column_that_is_called_like_an_accounts_is_a_stranger_until_somebody_says_whose_it_is() -> None:
    found = ties("accounts", [Edge("a", ("account_id",), "accounts", ("id",), "a")])
    columns = {"accounts": ["id"], "a": ["account_id"], "b": ["account_id", "user_id"], "c": ["other"]}
    keys = {"a": ["other"]}
    assert strangers(found, columns, (), (), keys) == [("b", "account_id")]
    assert strangers(found, columns, ("user_id",), [("b", "account_id")], keys) == [("b", "user_id")]
