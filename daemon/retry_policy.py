"""Which retry policy holds for a job, of those its handler, its kind's section and its queue's section give."""

from __future__ import annotations

from dataclasses import replace

from daemon.work_settings import RetrySettings
from jobs.model import DEFAULT_POLICY, Exponential, Fixed, Ladder, Policy


def retry_policy(kind: RetrySettings | None, declared: Policy | None, queue: RetrySettings) -> Policy:
    """[kinds.X], key by key, over what the handler declares, or else over [queues.X] over the default."""
    policy = declared if declared is not None else overlaid(DEFAULT_POLICY, queue)
    return policy if kind is None else overlaid(policy, kind)


def overlaid(policy: Policy, settings: RetrySettings) -> Policy:
    """`policy` with the keys that `settings` gives in place of its own."""
    policy = _waits(policy, settings)
    if settings.jitter is not None:
        policy = _jittered(policy, settings.jitter)
    return policy if settings.attempts is None else _bounded(policy, settings.attempts)


def _waits(policy: Policy, settings: RetrySettings) -> Policy:
    if settings.retry:
        return Ladder(*settings.retry, jitter=policy.jitter)
    if settings.backoff is None and settings.delay is None and settings.max_delay is None:
        return policy
    first_s = _first_wait_s(policy) if settings.delay is None else settings.delay
    if settings.backoff == "fixed" or (settings.backoff is None and isinstance(policy, Fixed)):
        return Fixed(first_s, policy.max_attempts, policy.jitter)
    longest_s = policy.max_s if isinstance(policy, Exponential) else DEFAULT_POLICY.max_s
    longest_s = longest_s if settings.max_delay is None else settings.max_delay
    return Exponential(first_s, max(first_s, longest_s), policy.max_attempts, policy.jitter)


def _first_wait_s(policy: Policy) -> float:
    match policy:
        case Exponential():
            return policy.base_s
        case Fixed():
            return policy.every_s
    return policy.delays_s[0] if policy.delays_s else DEFAULT_POLICY.base_s


def _jittered(policy: Policy, jitter: float) -> Policy:
    if isinstance(policy, Ladder):
        return Ladder(*policy.delays_s, jitter=jitter)
    return replace(policy, jitter=jitter)


def _bounded(policy: Policy, attempts: int) -> Policy:
    """A ladder is cut, or its last wait repeated; one without waits has none to repeat, so the default's are taken."""
    if not isinstance(policy, Ladder):
        return replace(policy, max_attempts=attempts)
    if not policy.delays_s and attempts > 1:
        return replace(DEFAULT_POLICY, max_attempts=attempts, jitter=policy.jitter)
    delays = policy.delays_s[: attempts - 1]
    return Ladder(*delays, *policy.delays_s[-1:] * (attempts - 1 - len(delays)), jitter=policy.jitter)
