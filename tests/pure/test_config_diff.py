"""A reload can say what changed, and what it cannot change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.config import parse
from daemon.config_diff import Change, diff
from daemon.config_schema import keys_of
from daemon.config_show import entries
from daemon.config_tree import dotted

OLD = """
[daemon]
lease = "30s"
poll_interval = "1s"
[queues.mail]
concurrency = 5
[queues."org:*:mail"]
concurrency = 2
[email.relays.main]
host = "relay.example"
username = "u"
password = "one"
rate = "5/s"
"""
NEW = """
[daemon]
lease = "40s"
poll_interval = "2s"
[queues."org:*:mail"]
concurrency = 3
[limits.all]
per = "lane"
rate = "5/s"
[email.relays.main]
host = "relay.example"
username = "u"
password = "two"
[email.relays.second]
host = "second.example"
"""


def test_a_diff_says_what_changed_what_came_what_went_and_what_needs_a_restart() -> None:
    found = diff(parse(OLD), parse(NEW))
    assert found.changed == (
        Change("daemon.lease", '"30s"', '"40s"'),
        Change("daemon.poll_interval", '"1s"', '"2s"'),
        Change('queues."org:*:mail".concurrency', "2", "3"),
        Change("email.relays.main.password", '"***"', '"***" (another)'),
        Change("email.relays.main.rate", '"5/s"', "unset"),
    )
    assert found.added == ("limits.all", "email.relays.second")
    assert found.removed == ("queues.mail",)
    assert found.restart_required == ("daemon.lease",)
    assert 'daemon.lease: "30s" → "40s"  (needs a restart)' in str(found).splitlines()


def test_a_database_that_differs_only_in_its_password_is_another_one() -> None:
    old, new, moved = (f'[database]\ndsn = "postgresql://u:{rest}/d"' for rest in ("one@h", "two@h", "one@i"))
    assert diff(parse(old), parse(new)).changed[0].new == '"postgresql://u:***@h/d" (another)'
    assert diff(parse(old), parse(moved)).changed[0].new == '"postgresql://u:***@i/d"'


def test_moving_a_setting_elsewhere_changes_nothing() -> None:
    assert not diff(parse(OLD), parse("# later\n" + OLD, env={"JOBSD_DAEMON__LEASE": "30s"}))


def test_there_and_back_again_mirrors() -> None:
    forth, back = diff(parse(OLD), parse(NEW)), diff(parse(NEW), parse(OLD))
    assert (forth.added, forth.removed) == (back.removed, back.added)
    assert [(c.path, c.old) for c in forth.changed][:3] == [(c.path, c.new) for c in back.changed][:3]


@given(st.sampled_from(["development", "production"]), st.integers(1, 1000), st.integers(1, 1000))
def test_a_diff_is_empty_only_for_equal_configs(profile: str, old: int, new: int) -> None:
    before = parse("", overrides={"queues.default.concurrency": old})
    after = parse("", overrides={"queues.default.concurrency": new, "profile": profile})
    assert bool(diff(before, after)) == (before != after)


@pytest.mark.parametrize("path", ["database.dsn", "daemon.handlers", "daemon.state_dir", "admin.listen"])
def test_what_is_bound_once_needs_a_restart(path: str) -> None:
    assert {dotted(entry.path): entry.key.restart for entry in entries(parse(""))}[path]


def test_everything_about_the_work_itself_can_be_reloaded() -> None:
    sections = ("queues", "kinds", "schedules", "limits", "webhook", "email", "dns", "retention", "log")
    config = parse(NEW + '[kinds.a]\nattempts = 1\n[schedules.a]\nkind = "a"\ncron = "@daily"')
    assert [dotted(e.path) for e in entries(config) if e.path[0] in sections and e.key.restart] == []
    assert keys_of(type(config.daemon))["queues"].restart is False
