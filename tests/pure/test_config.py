"""What holds: which of the file, the environment, systemd and the command line wins, and what the engine is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daemon.config import Config, ConfigError, load, parse
from daemon.config_show import entries
from daemon.config_tree import dotted
from daemon.settings import Dsn
from jobs.values import Secret, rate

SMALL = """
[database]
dsn = "postgresql:///shop"            # or "embedded"
[daemon]
handlers = ["shop.handlers"]          # modules with @job functions
lease = "30s"                         # a silent daemon's rows are rescued after this
drain_timeout = "30s"
[admin]
listen = "127.0.0.1:9464"
[queues.default]
concurrency = 100
[queues."org:*:notifications"]        # a pattern: every such queue gets these
concurrency = 20
[limits.example_com]                  # exact over all daemons
lane = "example.com"                  # or queue, kind, org_id, or a key in args: "args.account"
rate = "10/s"
burst = 10
concurrency = 5
[webhook]
allow_addresses = ["127.0.0.0/8"]     # exceptions to the SSRF guard; none by default
allow_http = true                     # https only by default
allow_ports = [80, 443, "8000-8999"]
[email]
from = "Shop <no-reply@shop.example>"
[email.relays.main]
host = "127.0.0.1"
port = 2525
tls = "none"                          # "required" by default; "implicit", "none"
rate = "50/s"
[dns]
resolvers = ["127.0.0.1:5353"]        # the system's by default
[schedules.heartbeat]
kind = "heartbeat"
cron = "*/5 * * * *"
timezone = "Europe/Warsaw"
missed = "one"                        # skip, one, all
"""


def test_the_small_sample_of_every_section_means_what_it_says() -> None:
    config = parse(SMALL)
    assert config.warnings == ()
    assert config.database.dsn == "postgresql:///shop"
    assert (config.daemon.handlers, config.daemon.lease, config.daemon.drain_timeout) == (
        ("shop.handlers",),
        30.0,
        30.0,
    )
    assert config.admin.address == ("127.0.0.1", 9464)
    assert config.queue("org:7:notifications").concurrency == 20
    limit = config.limits["example_com"]
    assert (limit.lane, limit.rate, limit.bucket, limit.concurrency) == ("example.com", rate("10/s"), 10, 5)
    assert (config.webhook.allow_http, config.webhook.allow_ports) == (True, (80, 443, "8000-8999"))
    assert config.email.from_ == "Shop <no-reply@shop.example>"
    relay = config.email.relays["main"]
    assert (relay.host, relay.port, relay.tls, relay.rate) == ("127.0.0.1", 2525, "none", rate("50/s"))
    assert config.dns.resolvers == ("127.0.0.1:5353",)
    schedule = config.schedules["heartbeat"]
    assert (schedule.cron, schedule.timezone, schedule.missed, schedule.args) == (
        "*/5 * * * *",
        "Europe/Warsaw",
        "one",
        {},
    )


@pytest.mark.req("JP-01")
@pytest.mark.parametrize(
    ("profile", "name", "concurrency", "attempts"),
    [
        ("development", "cleanup", 1, 3),
        ("development", "maintenance", 1, 3),
        ("development", "notification", 5, 5),
        ("development", "report", 2, 3),
        ("production", "cleanup", 2, 5),
        ("production", "maintenance", 1, 5),
        ("production", "notification", 10, 7),
        ("production", "report", 3, 5),
    ],
)
def test_the_shipped_queues_have_the_numbers_of_their_profile(
    profile: str, name: str, concurrency: int, attempts: int
) -> None:
    queue = parse(f'profile = "{profile}"').queue(name)
    assert (queue.concurrency, queue.attempts, queue.backoff, queue.delay) == (
        concurrency,
        attempts,
        "exponential",
        1.0,
    )


def test_a_key_given_for_a_shipped_queue_leaves_its_others_alone() -> None:
    queue = parse("[queues.notification]\nconcurrency = 50").queue("notification")
    assert (queue.concurrency, queue.attempts, queue.delay) == (50, 5, 1.0)


def test_a_ladder_given_for_a_shipped_queue_takes_the_place_of_its_backoff() -> None:
    queue = parse('[queues.notification]\nretry = ["1m", "5m"]').queue("notification")
    assert (queue.retry, queue.backoff, queue.delay, queue.attempts) == ((60.0, 300.0), None, None, 5)


def test_the_profile_changes_defaults_and_never_what_was_given() -> None:
    given = '[log]\nformat = "text"\n[queues.report]\nconcurrency = 2\n'
    config = parse('profile = "production"\n' + given)
    assert (config.log.format, config.queue("report").concurrency) == ("text", 2)
    assert config.daemon.state_dir == Path("/var/lib/jobsd")
    assert parse("", env={"JOBSD_PROFILE": "production"}).log.format == "json"
    assert parse("", overrides={"profile": "production"}).log.format == "json"


@pytest.mark.req("BJ-23")
def test_later_authorities_win_key_by_key() -> None:
    text = '[daemon]\nlease = "20s"\npoll_interval = "2s"\n[queues.default]\nconcurrency = 7\nattempts = 4\n'
    env = {"JOBSD_DAEMON__LEASE": "40s", "JOBSD_QUEUES__DEFAULT__CONCURRENCY": "8"}
    config = parse(text, env=env, overrides={"queues.default.concurrency": 9})
    assert (config.daemon.lease, config.daemon.poll_interval, config.daemon.drain_timeout) == (40.0, 2.0, 30.0)
    assert (config.queue("default").concurrency, config.queue("default").attempts) == (9, 4)
    told = {
        path: config.origins[path].text for path in ("daemon.lease", "daemon.poll_interval", "daemon.drain_timeout")
    }
    assert told == {
        "daemon.lease": "env JOBSD_DAEMON__LEASE",
        "daemon.poll_interval": "config.toml:3",
        "daemon.drain_timeout": "default",
    }
    assert config.origins["queues.default.concurrency"].text == "command line"
    assert config.origins["queues.default.attempts"].text == "config.toml:6"
    assert parse('profile = "production"').origins["log.format"].text == "profile"


def test_overrides_may_be_text_values_paths_or_tables(tmp_path: Path) -> None:
    overrides = {
        "daemon.queues": "a, b",
        "daemon.state_dir": tmp_path,
        "admin.listen": "",
        'queues."org:*".concurrency': "3",
        "schedules.tick": {"kind": "tick", "cron": "* * * * *", "args": {"n": 1}},
    }
    config = parse('[queues."org:*"]\nattempts = 2', overrides=overrides)
    assert (config.daemon.queues, config.daemon.state_dir, config.admin.address) == (("a", "b"), tmp_path, None)
    assert (config.queue("org:1").concurrency, config.queue("org:1").attempts) == (3, 2)
    assert config.schedules["tick"].args == {"n": 1}


def test_the_file_is_the_named_one_then_the_variables_then_the_one_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("daemon.config.SEARCH", (Path("config.toml"), tmp_path / "etc" / "config.toml"))
    assert load(env={}).source == "no file"
    (tmp_path / "etc").mkdir()
    for path in ("etc/config.toml", "config.toml", "named.toml", "variable.toml"):
        (tmp_path / path).write_text(f'[daemon]\nname = "{path}"\n')
        if path == "etc/config.toml":
            assert load(env={}).daemon.name == path
    assert load(env={}).daemon.name == "config.toml"
    assert load(env={"JOBSD_CONFIG": "variable.toml"}).daemon.name == "variable.toml"
    named = load("named.toml", env={"JOBSD_CONFIG": "variable.toml"})
    assert (named.daemon.name, named.source, named.origins["daemon.name"].text) == (
        "named.toml",
        "named.toml",
        "named.toml:2",
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"a = '\xff'", "is not UTF-8"),
        (b"#" * (1024 * 1024 + 1), "is over 1024 KiB"),
        (b"[daemon]\nlease = 30s", "config.toml:2: Expected newline"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_located_error(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "config.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        load(tmp_path / "config.toml", env={})


def test_the_environment_of_this_process_is_read_unless_another_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").touch()
    monkeypatch.setenv("JOBSD_DAEMON__NAME", "from here")
    assert load(tmp_path / "config.toml").daemon.name == "from here"


@pytest.mark.parametrize(
    ("variable", "text", "path", "value"),
    [
        *(("WEBHOOK__ALLOW_HTTP", text, "webhook.allow_http", True) for text in ("true", "Yes", "on", "1")),
        *(("DNS__TCP_FALLBACK", text, "dns.tcp_fallback", False) for text in ("false", "NO", "off", "0")),
        ("WEBHOOK__ALLOW_PORTS", "443, 8000-8999", "webhook.allow_ports", (443, "8000-8999")),
        ("DAEMON__QUEUES", "a,,b ", "daemon.queues", ("a", "b")),
        ("DAEMON__HANDLERS", "", "daemon.handlers", ()),
        ("DAEMON__NAME", "", "daemon.name", None),
        ("ADMIN__LISTEN", "", "admin.listen", ""),
        ("QUEUES__BULK_MAIL__JITTER", "0.25", "queues.bulk-mail.jitter", 0.25),
        ("QUEUES__NEW__RETRY", "1s,1m", "queues.new.retry", (1.0, 60.0)),
        ("LIMITS__A__ARGS__ACCOUNT", "42", "limits.a.args", {"account": "42"}),
        ("LIMITS__A__ARGS", '{"b": "c"}', "limits.a.args", {"b": "c"}),
        ("EMAIL__FROM", "a@b.example", "email.from", "a@b.example"),
        ("EMAIL__MAX_SIZE", "2MiB", "email.max_size", 2 * 1024 * 1024),
    ],
)
def test_a_variable_is_read_as_its_keys_type(variable: str, text: str, path: str, value: object) -> None:
    config = parse('[queues.bulk-mail]\n[limits.a]\nrate = "1/s"\nper = "lane"\n', env={f"JOBSD_{variable}": text})
    assert {dotted(entry.path): entry.value for entry in entries(config)}[path] == value


@pytest.mark.parametrize("name", ["Public", "pg_jobs", "a b", "", "x" * 64, "1a"])
def test_a_schema_name_that_would_need_quotes_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"config.toml:2: database.schema: "):
        parse(f'[database]\nschema = "{name}"')


# secrets and where they come from


def test_the_database_is_found_by_the_highest_authority_that_names_one(tmp_path: Path) -> None:
    (tmp_path / "database-url").write_text("postgresql:///credential\n")
    (tmp_path / "file").write_text("postgresql:///file\n")
    credential = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    by_file = f'[database]\ndsn_file = "{tmp_path / "file"}"\n'
    by_url = credential | {"DATABASE_URL": "postgresql:///url"}
    by_key = by_url | {"JOBSD_DATABASE__DSN": "postgresql:///key"}

    def dsn(config: Config) -> tuple[str, str]:
        return str(config.database.dsn), config.origins["database.dsn"].text

    assert dsn(parse("")) == ("embedded", "default")
    assert dsn(parse("", env=credential)) == ("postgresql:///credential", "credential database-url")
    assert dsn(parse(by_file, env=credential)) == ("postgresql:///file", "config.toml:2 (dsn_file)")
    assert dsn(parse('[database]\ndsn = "embedded"', env=credential)) == ("embedded", "config.toml:2")
    assert dsn(parse(by_file, env=by_url)) == ("postgresql:///url", "env DATABASE_URL")
    assert dsn(parse(by_file, env=by_key)) == ("postgresql:///key", "env JOBSD_DATABASE__DSN")
    by_env_file = by_url | {"JOBSD_DATABASE__DSN_FILE": str(tmp_path / "file")}
    assert dsn(parse("", env=by_env_file)) == ("postgresql:///file", "env JOBSD_DATABASE__DSN_FILE")


def test_the_state_folder_is_systemds_unless_it_is_given() -> None:
    env = {"STATE_DIRECTORY": "/var/lib/one:/var/lib/two"}
    assert parse("", env=env).daemon.state_dir == Path("/var/lib/one")
    assert parse('[daemon]\nstate_dir = "here"', env=env).daemon.state_dir == Path("here")


def test_a_secret_and_its_file_by_the_same_hand_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text("postgresql:///file")
    with pytest.raises(ConfigError, match=r"config.toml:3: database.dsn_file: give dsn or dsn_file, not both"):
        parse(f'[database]\ndsn = "postgresql:///shop"\ndsn_file = "{tmp_path / "dsn"}"')


RELAY = '[email.relays.main]\nhost = "relay.example"\nusername = "u"\n'


def test_a_relays_password_given_by_a_higher_authority_replaces_the_file_and_the_other_way_round() -> None:
    by_file = parse(RELAY + 'password = "p"', env={"JOBSD_EMAIL__RELAYS__MAIN__PASSWORD_FILE": "/run/p"})
    assert (by_file.email.relays["main"].password, by_file.email.relays["main"].password_file) == (None, "/run/p")
    by_key = parse(RELAY + 'password_file = "/run/p"', env={"JOBSD_EMAIL__RELAYS__MAIN__PASSWORD": "p"})
    assert (by_key.email.relays["main"].password, by_key.email.relays["main"].password_file) == (Secret("p"), None)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "there is no file"), (b"\xff", "not UTF-8"), (b"x" * (64 * 1024 + 1), "over 64 KiB")],
)
def test_a_secret_file_that_cannot_be_used_is_a_located_error(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "dsn").write_bytes(content)
    with pytest.raises(ConfigError, match=f"config.toml:2: database.dsn_file: .*{said}"):
        parse(f'[database]\ndsn_file = "{tmp_path / "dsn"}"')


def test_a_pipe_in_place_of_a_secret_file_does_not_hang_the_daemon(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="there is no file"):
        parse(f'[database]\ndsn_file = "{tmp_path / "pipe"}"')


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://u:pa:ss@h:5432/d?sslmode=require", "postgresql://u:***@h:5432/d?sslmode=require"),
        ("postgresql://u:p@s@h/d", "postgresql://u:***@h/d"),
        ("postgresql://h/d?user=u&password=p&sslmode=a", "postgresql://h/d?user=u&password=***&sslmode=a"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("embedded", "embedded"),
    ],
)
def test_a_database_address_is_shown_without_its_password(dsn: str, shown: str) -> None:
    assert Dsn(dsn).shown == shown
    assert repr(Dsn(dsn)) == f"Dsn({shown})"


# what the engine asks


def test_a_queues_section_is_found_by_name_then_by_the_most_specific_pattern() -> None:
    config = parse(
        """
        queues."*".concurrency = 1
        queues."org:*".concurrency = 2
        queues."org:*:notifications".concurrency = 3
        queues."org:7:*".concurrency = 4
        queues."org:7:notifications".concurrency = 5
        """
    )
    found = {
        name: config.queue(name).concurrency
        for name in ("other", "org:8", "org:8:notifications", "org:7:mail", "org:7:notifications", "cleanup")
    }
    assert found == {
        "other": 1,
        "org:8": 2,
        "org:8:notifications": 3,
        "org:7:mail": 4,
        "org:7:notifications": 5,
        "cleanup": 1,
    }
    assert parse("").queue("never heard of").concurrency == 100


def test_what_is_remembered_of_queues_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.config.REMEMBERED", 10)
    config = parse("")
    for n in range(100):
        config.queue(f"org:{n}")
        config.policy("webhook", f"org:{n}", None)
    assert len(config._queues) <= 10
    assert len(config._policies) <= 10


def test_two_configs_are_equal_when_they_mean_the_same() -> None:
    written = parse('[daemon]\nlease = "30s"\n', name="a.toml")
    assert written == parse("", env={"JOBSD_DAEMON__LEASE": "30000ms"})
    assert written != parse("", overrides={"daemon.lease": "31s"})
