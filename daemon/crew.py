"""The parts that claimed rows pass through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from daemon.finisher import Finisher
from daemon.observe import Observer
from daemon.runner import Runner
from daemon.store import Store
from daemon.terms import TermsBook


@dataclass(frozen=True, slots=True)
class Crew:
    """Those that the claimer and its admission work with.  `worker_id`: whose rows they are; None while this daemon
    has no lease, and may claim nothing."""

    store: Store
    runner: Runner
    finisher: Finisher
    observer: Observer
    worker_id: Callable[[], int | None]
    terms: TermsBook
