"""What an attempt goes by: the parts a reload may replace, and what they say of the jobs of one kind in one queue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from daemon.config import Config
from jobs.context import Tools
from jobs.model import Job, Policy
from jobs.registry import Kind
from jobs.webhook.profiles import DEFAULT

_RULES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Setup:
    """Everything an attempt works with that a reload may replace; an attempt keeps the one it started with."""

    config: Config
    tools: Tools
    kinds: Mapping[str, Kind]


@dataclass(frozen=True, slots=True)
class Rules:
    """What the config and the handler together say about the jobs of one kind in one queue; and what retry profile
    their destination asks for."""

    kind: Kind
    policy: Policy
    timeout_s: float
    keep_done: bool
    keep_dead: bool


class RuleBook:
    """Looks rules up once for each kind and queue of a setup."""

    def __init__(self, on_unknown_profile: Callable[[str, str | None], None]) -> None:
        """`on_unknown_profile`: hears of a profile that the setup does not have, once, and of a lane that asks for it;
        there the kind's own policy counts."""
        self._on_unknown_profile = on_unknown_profile
        self._unknown: set[str] = set()
        self._rules: dict[tuple[str, str, str], Rules] = {}
        self._rules_of: Setup | None = None

    def rules(self, setup: Setup, job: Job) -> Rules:
        if self._rules_of is not setup or len(self._rules) > _RULES_MAX:
            if self._rules_of is not setup:
                self._unknown.clear()
            self._rules, self._rules_of = {}, setup
        profile = DEFAULT if job.terms is None else job.terms.profile
        rules = self._rules.get((job.kind, job.queue, profile))
        if rules is None:
            kind, queue = setup.kinds[job.kind], setup.config.queue(job.queue)
            ladder = setup.config.webhook.ladder(profile)
            if ladder is None and profile != DEFAULT and profile not in self._unknown:
                self._unknown.add(profile)
                self._on_unknown_profile(profile, job.lane)
            rules = self._rules[job.kind, job.queue, profile] = Rules(
                kind,
                ladder or setup.config.policy(job.kind, job.queue, kind.retry),
                setup.config.timeout_s(job.kind, job.queue, kind.timeout_s),
                queue.keep_done is None or queue.keep_done > 0,
                queue.keep_dead is None or queue.keep_dead > 0,
            )
        return rules
