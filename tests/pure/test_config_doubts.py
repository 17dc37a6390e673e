"""What is allowed but hardly meant is a warning with a line, never an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.config import load, parse
from daemon.config_doubts import unserved_kinds

RELAY = '[email.relays.main]\nhost = "relay.example"\n'

ROLLUP = """[jobs.sums]
verb = "rollup"
source = "app.rows"
into = "app.daily"
by = ["who"]
time_column = "at"
bucket_column = "day"
count_column = "n"
retention = "400d"
"""
PURGE = """[jobs.gone]
verb = "purge"
table = "App.rows"
age_column = "at"
retention = "90d"
"""
WEEKS = ROLLUP.replace("jobs.sums", "jobs.weeks").replace("app.daily", "app.weekly").replace("app.rows", "app.daily")


@pytest.mark.parametrize(
    ("text", "path", "said"),
    [
        ('[daemon]\nlease = "4s"', "daemon.lease", "run twice"),
        ('[daemon]\ndrain_timeout = "2m"', "daemon.drain_timeout", "TimeoutStopSec"),
        ('[daemon]\npoll_interval = "10ms"', "daemon.poll_interval", "20 times a second"),
        ('[daemon]\npoll_interval = "30s"', "daemon.poll_interval", "waits this long"),
        ("[queues.a]\nconcurrency = 6000", "queues.a.concurrency", "5000"),
        ("[queues.a]\nattempts = 500", "queues.a.attempts", "hopeless"),
        ('[database]\nstatement_timeout = "0"', "database.statement_timeout", "for ever"),
        ('[database]\nstatement_timeout = "1s"', "database.statement_timeout", "never end"),
        ('[admin]\nlisten = "0.0.0.0:9464"', "admin.listen", "no password"),
        ('[admin]\nlisten = "[::]:9464"', "admin.listen", "no password"),
        ('[webhook]\nallow_addresses = ["0.0.0.0/0"]', "webhook.allow_addresses", "off"),
        ('[webhook]\nallow_addresses = ["169.254.0.0/16"]', "webhook.allow_addresses", "credentials"),
        ("[email.forward]\ndomain = 'fwd.shop.example'", "email.forward.domain", "srs_secrets is empty"),
        (RELAY + 'tls = "none"', "email.relays.main.tls", "in the clear"),
        (RELAY + "verify_certificate = false", "email.relays.main.verify_certificate", "can read the mail"),
        (RELAY + "port = 465", "email.relays.main.tls", 'tls = "implicit"'),
        (RELAY + 'username = "u"\npassword_file = "/nowhere"', "email.relays.main.password_file", "no file /nowhere"),
        ('[retention]\nhistory = "1h"', "retention.history", "looked up"),
        ('[retention]\nidempotency_keys = "1m"', "retention.idempotency_keys", "second job"),
        ('profile = "production"', "database.dsn", "backups"),
        (ROLLUP + PURGE, "jobs.sums.source_retention", "jobs.gone deletes rows of app.rows after 90d"),
        (ROLLUP + 'source_retention = "91d"\n' + PURGE, "jobs.sums.source_retention", "of what is left"),
        (ROLLUP + WEEKS, "jobs.weeks.source_retention", "jobs.sums deletes rows of app.daily after 400d"),
    ],
)
def test_a_doubtful_value_is_a_warning_that_names_it(text: str, path: str, said: str) -> None:
    (warning,) = parse(text).warnings
    assert warning.path == path
    assert said in warning.message


def test_a_warning_stands_at_its_line() -> None:
    assert str(parse('\n[daemon]\nlease = "2s"').warnings[0]).startswith("config.toml:3: daemon.lease: ")


@pytest.mark.parametrize(
    "text",
    [
        "",
        '[admin]\nlisten = "localhost:1"\n[email.relays.main]\nhost = "127.0.0.1"\ntls = "none"',
        '[admin]\nlisten = "unix:/run/jobsd/admin.sock"',
        '[admin]\nlisten = "[::1]:9464"',
        '[webhook]\nallow_addresses = ["127.0.0.0/8"]',
        'profile = "production"\n[database]\ndsn = "postgresql:///shop"',
        ROLLUP + 'source_retention = "90d"\n' + PURGE,
    ],
)
def test_usual_settings_raise_no_doubt(text: str) -> None:
    assert parse(text).warnings == ()


def test_a_secret_in_a_file_that_everybody_can_read_is_doubtful(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        '[database]\ndsn = "postgresql://u:p@h/d"\n'
        '[email.relays.main]\nhost = "127.0.0.1"\nusername = "u"\npassword = "p"'
    )
    path.chmod(0o644)
    assert [warning.path for warning in load(path, env={}).warnings] == ["database.dsn", "email.relays.main.password"]
    assert load(path, env={"DATABASE_URL": "postgresql://u:p@h/d"}).warnings[0].path == "email.relays.main.password"
    path.chmod(0o640)
    assert load(path, env={}).warnings == ()


def test_a_secret_that_stands_elsewhere_is_not_exposed(tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text("postgresql://u:p@h/d")
    path = tmp_path / "config.toml"
    path.write_text(
        f'[database]\ndsn_file = "{tmp_path}/dsn"\n'
        '[email.relays.main]\nhost = "127.0.0.1"\nusername = "u"\npassword = "secret://relay"'
    )
    path.chmod(0o644)
    assert load(path, env={}).warnings == ()


def test_kinds_that_nobody_serves_are_named_with_what_may_be_meant() -> None:
    config = parse(
        """
        [kinds.webhok]
        attempts = 1
        [schedules.tick]
        kind = "tick"
        cron = "@daily"
        [limits.a]
        kind = "dns_*"
        concurrency = 1
        [limits.b]
        kind = "emails"
        concurrency = 1
        """
    )
    assert [str(problem) for problem in unserved_kinds(config, ("webhook", "email", "dns_check"))] == [
        'config.toml:3: kinds.webhok: no handler is registered for kind "webhok"; did you mean "webhook"?',
        'config.toml:5: schedules.tick.kind: no handler is registered for kind "tick"',
        'config.toml:11: limits.b.kind: no handler is registered for kind "emails"; did you mean "email"?',
    ]
