"""A claim is forgotten with the last of its rows' results, never before: it says what died with the daemon."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from daemon.claims import Claims
from jobs.model import Job


def rows(claim: int | None, count: int) -> list[Job]:
    return [Job(n, 1, "noop", "q", 2, 1, "{}", 0.0, claim_id=claim) for n in range(count)]


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    order=st.randoms(use_true_random=False),
    cut=st.integers(1, 7),
)
def test_it_ends_exactly_where_its_last_row_is_written(sizes: list[int], order: Random, cut: int) -> None:
    """In whatever batches the results come; what is asked for a write that then fails changes nothing."""
    claims = Claims()
    left = dict(enumerate(sizes))
    jobs = [job for claim, size in left.items() for job in rows(claim, size)]
    claims.taken(jobs)
    order.shuffle(jobs)
    ended: list[int] = []
    for start in range(0, len(jobs), cut):
        batch = jobs[start : start + cut]
        last = {claim for claim in left if left[claim] == sum(job.claim_id == claim for job in batch)} - set(ended)
        assert [set(claims.ending(batch)), set(claims.ending(batch))] == [last, last]
        claims.written(batch)
        ended += last
        for job in batch:
            left[job.claim_id or 0] -= 1
        assert set(claims.known()) == {claim for claim, count in left.items() if count}
    assert sorted(ended) == sorted(left)


def test_a_claim_it_knows_nothing_of_ends_with_the_rows_it_is_given() -> None:
    """A process that runs a single row has no list of its claims."""
    assert Claims().ending(rows(5, 1)) == [5]


def test_rows_without_a_claim_end_none() -> None:
    claims = Claims()
    claims.taken(rows(None, 2))
    assert claims.ending(rows(None, 2)) == []
    claims.written(rows(None, 2))
    assert claims.known() == []
