"""Every mark names a row of docs/requirements.md that exists, and the map of rows and tests finds them all."""

from __future__ import annotations

from collections import Counter
from textwrap import dedent

import pytest

from tests.requirement_map import PAGE, Proof, Row, UnreadableMark, all_proofs, proofs, report, rows

GROUPS = {"BJ": 30, "AS": 9, "OR": 15, "JP": 9, "JD": 9, "DC": 4}


def _proofs(source: str) -> list[tuple[str, str]]:
    return [(proof.row_id, proof.test) for proof in proofs(dedent(source), "tests/test_x.py")]


def test_every_mark_names_a_row() -> None:
    known = {row.id for row in rows(PAGE.read_text())}
    assert [proof for proof in all_proofs() if proof.row_id not in known] == []


def test_rows_are_numbered_from_1_without_a_gap_or_a_double() -> None:
    expected = [f"{group}-{number:02}" for group, most in GROUPS.items() for number in range(1, most + 1)]
    assert [row.id for row in rows(PAGE.read_text())] == expected


def test_every_table_line_of_the_page_is_read_as_a_row() -> None:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    rules = sum(line.startswith("| ---") for line in lines)
    assert len(lines) - 2 * rules == sum(GROUPS.values())


def test_marks_are_found_on_tests_classes_files_and_parameters() -> None:
    found = _proofs(
        """
        from pytest import mark
        pytestmark = [pytest.mark.slow, pytest.mark.req("DC-01")]

        @pytest.mark.req("BJ-01", "BJ-02")
        @pytest.mark.parametrize("n", [1, pytest.param(2, marks=mark.req("BJ-03"))])
        async def test_one(n): ...

        @mark.req("OR-01")
        class TestTwo:
            pytestmark = pytest.mark.req("OR-02")

            def test_three(self): ...
            def helper(self): ...
        """
    )
    assert Counter(found) == Counter(
        [(row, "tests/test_x.py::test_one") for row in ("DC-01", "BJ-01", "BJ-02", "BJ-03")]
        + [(row, "tests/test_x.py::TestTwo::test_three") for row in ("DC-01", "OR-01", "OR-02")]
    )


@pytest.mark.parametrize(
    ("mark", "says"),
    [
        ("@pytest.mark.req\ndef test_x(): ...", "without an id"),
        ("@pytest.mark.req()\ndef test_x(): ...", "takes the ids of rows"),
        ("@pytest.mark.req(id='BJ-01')\ndef test_x(): ...", "takes the ids of rows"),
        ("@pytest.mark.req(ROW)\ndef test_x(): ...", "must be written out"),
        ("@pytest.mark.req('BJ-01')\ndef helper(): ...", "marks no test"),
        ("row = pytest.mark.req('BJ-01')", "marks no test"),
    ],
)
def test_a_mark_that_proves_nothing_is_refused(mark: str, says: str) -> None:
    with pytest.raises(UnreadableMark, match=says):
        proofs(mark, "tests/test_x.py")


def test_the_report_shows_what_is_proved_what_is_open_and_how_many() -> None:
    wanted = [Row("BJ-01", "one"), Row("BJ-02", "two"), Row("BJ-03", "three")]
    found = [Proof("BJ-02", "tests/test_x.py::test_a"), Proof("BJ-02", "tests/test_x.py::test_b")]
    assert report(wanted, found).splitlines() == [
        "BJ-02  two",
        "       tests/test_x.py::test_a",
        "       tests/test_x.py::test_b",
        "",
        "open:",
        "  BJ-01  one",
        "  BJ-03  three",
        "1 of 3 rows have a test (2 tests); 2 are open",
    ]
    assert report(wanted, found, only_open=True).startswith("open:\n  BJ-01  one")
