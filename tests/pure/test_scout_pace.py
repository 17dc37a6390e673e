"""How often the scout looks, by what its looks cost."""

from __future__ import annotations

import pytest

from daemon.scout import Pace


@pytest.mark.req("OR-05")
def test_one_slow_look_does_not_put_off_the_next_and_three_do() -> None:
    pace = Pace(0.1)
    assert pace.pause_s(0.003) == pytest.approx(0.03)
    assert pace.pause_s(0.4) == pytest.approx(0.03)
    assert pace.pause_s(0.5) == pytest.approx(0.03)
    assert pace.pause_s(0.6) == pytest.approx(4.0), "it has become that slow"
    assert pace.pause_s(0.002) == pytest.approx(0.02)
