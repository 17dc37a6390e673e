"""Which section says how long a failed job holds up those behind it."""

from __future__ import annotations

import pytest

from daemon.config import ConfigError, parse
from daemon.ordering import order_wait_s
from daemon.work_settings import KindSettings, QueueSettings
from jobs.values import Duration

BLOCK, SKIP, UNSET = QueueSettings(ordering="block"), QueueSettings(ordering="skip"), QueueSettings()


@pytest.mark.parametrize(
    ("kind", "queue", "wait_s"),
    [
        (None, UNSET, None),
        (None, BLOCK, None),
        (None, SKIP, 0.0),
        (None, QueueSettings(ordering_wait=Duration(600.0)), 600.0),
        (KindSettings(), SKIP, 0.0),
        (KindSettings(ordering="block"), SKIP, None),
        (KindSettings(ordering="block", ordering_wait=Duration(60.0)), SKIP, 60.0),
        (KindSettings(ordering="skip"), BLOCK, 0.0),
    ],
)
def test_the_kind_is_asked_before_the_queue(
    kind: KindSettings | None, queue: QueueSettings, wait_s: float | None
) -> None:
    assert order_wait_s(kind, queue) == wait_s


def test_the_file_says_it_in_words() -> None:
    config = parse('[kinds.sync]\nordering = "block"\nordering_wait = "10m"\n[queues.news]\nordering = "skip"\n')
    assert order_wait_s(config.kinds["sync"], config.queue("news")) == 600.0
    assert order_wait_s(None, config.queue("news")) == 0.0


def test_a_wait_that_means_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="ordering_wait"):
        parse('[kinds.sync]\nordering = "skip"\nordering_wait = "10m"\n')
