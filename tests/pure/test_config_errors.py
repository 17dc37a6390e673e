"""Everything wrong with a config is said at once, with its line, its key and a way out; nothing else is raised."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.config import Config, ConfigError, parse
from daemon.config_check import Checker, Problem
from daemon.config_env import variables
from daemon.config_template import env_template, render_template
from daemon.config_tree import DEFAULT, Table, file_table
from daemon.config_values import quoted
from daemon.toml_source import read_toml
from jobs.values import key
from tests.examples import examples

WRONG = """\
lease = "30s"
[deamon]
[daemon]
leese = "30s"
poll_interval = 1
drain_timeout = "2 minutes"
crash_limit = 0
handlers = ["shop.handlers", "shop handlers"]
[database]
concurrency = 5
pool_size = "ten"
dsn = "mysql://user:hunter2@host/shop"
[queues."two words"]
[queues.report]
backoff = "exponentiall"
attempts = 2000
[queues.mail]
retry = ["1m", "5x"]
[queues.ladder]
retry = ["1m"]
delay = "1s"
[kinds]
webhook = 3
[schedules.tick]
cron = "61 * * * *"
kind = "tick"
[schedules.tock]
cron = "* * * * *"
kind = "tock"
timezone = "Europe/Warsow"
[schedules.none]
[limits.nothing]
lane = "x"
[limits.nobody]
rate = "1/s"
[limits.odd]
per = "host"
concurrency = 1
[jbos.purge]
verb = "purge"
[admin]
listen = "9464"
[dns]
resolvers = ["9.9.9.9", "resolver.example"]
[email.relays.main]
host = "relay.example"
tls = "starttls"
[retention]
partitions_ahead = 1
"""

SAID = """\
config.toml:1: lease: unknown key in the file; it belongs in [daemon]
config.toml:2: deamon: unknown section; did you mean [daemon]?
config.toml:4: daemon.leese: unknown key; did you mean lease?
config.toml:5: daemon.poll_interval: the integer 1 stands where a duration belongs; write it with its unit, like "1s"
config.toml:6: daemon.drain_timeout: '2 minutes' is not a duration; write one like "250ms", "30s", "5m", "2h", "30d" \
or "1h30m"
config.toml:7: daemon.crash_limit: 0 is too small; at least 1
config.toml:8: daemon.handlers: 'shop handlers' is no module; write it like "shop.handlers"
config.toml:10: database.concurrency: unknown key in [database]; it belongs in [queues] or [limits] or [lanes] or [dns]
config.toml:11: database.pool_size: the string "ten" stands where an integer belongs
config.toml:12: database.dsn: is neither "embedded" nor an address like "postgresql://user@host/name"
config.toml:13: queues: "two words" cannot be a name here: letters, digits and _ . : @ -, and * for any characters
config.toml:15: queues.report.backoff: "exponentiall" is none of "exponential", "fixed"; did you mean "exponential"?
config.toml:16: queues.report.attempts: 2000 is too large; at most 1000
config.toml:18: queues.mail.retry: item 2: '5x' is not a duration; write one like "250ms", "30s", "5m", "2h", "30d" \
or "1h30m"
config.toml:20: queues.ladder.retry: a ladder says every wait by itself; take away backoff, delay and max_delay
config.toml:23: kinds.webhook: the integer 3 stands where a section [kinds.webhook] belongs
config.toml:25: schedules.tick.cron: minute: '61' is not 0-59
config.toml:30: schedules.tock.timezone: there is no 'Europe/Warsow'; did you mean 'Europe/Warsaw'?
config.toml:31: schedules.none.cron: is missing. Five fields: minute, hour, day of month, month, day of week \
(0 and 7 are Sunday).
config.toml:31: schedules.none.kind: is missing. The kind of the rows it inserts.
config.toml:32: limits.nothing.rate: give rate, concurrency or both; this limits nothing
config.toml:34: limits.nobody.per: say which jobs: queue, kind, org_id, lane, "args.KEY", or per
config.toml:37: limits.odd.per: 'host' is none of queue, kind, org_id, lane, "args.KEY"
config.toml:39: jbos: unknown section; did you mean [jobs]?
config.toml:42: admin.listen: '9464' is no address; write one like "127.0.0.1:9464"
config.toml:44: dns.resolvers: 'resolver.example' is not a resolver; write an address like "127.0.0.1:5353", \
"9.9.9.9" or "[::1]:53"
config.toml:47: email.relays.main.tls: "starttls" is none of "required", "implicit", "none"
config.toml:49: retention.partitions_ahead: 1 is too small; at least 2"""


def test_everything_wrong_is_said_at_once_each_with_its_line_and_a_way_out() -> None:
    assert errors(WRONG) == SAID.splitlines()


def test_a_section_with_several_broken_rules_says_all_of_them() -> None:
    text = """[daemon]
handlers = ["shop handlers"]
queues = []
kinds = []
crash_limit = 0
[queues.a]
delay = "2s"
max_delay = "1s"
backoff = "fixed"
"""
    assert [line.rsplit(":", 1)[0] for line in errors(text)] == [
        "config.toml:2: daemon.handlers",
        "config.toml:3: daemon.queues",
        "config.toml:4: daemon.kinds",
        "config.toml:5: daemon.crash_limit",
        "config.toml:8: queues.a.max_delay",
    ]


@dataclass(frozen=True, kw_only=True)
class Odd:
    one: int = key(1, "One.")
    two: int = key(2, "Two.", minimum=0)

    def __post_init__(self) -> None:
        if self.one == 7:
            raise ValueError("https: is no field, and seven is odd")
        if self.one == 9:
            raise ValueError("nine is odd")


@pytest.mark.parametrize(("one", "said"), [(7, "https: is no field, and seven is odd"), (9, "nine is odd")])
def test_a_refusal_that_names_no_key_stands_at_the_section(one: int, said: str) -> None:
    checker = Checker(Odd, "development")
    assert checker.settings(Odd, file_table(read_toml(f"one = {one}"), "x.toml"), ("odd",)) is None
    assert [str(problem) for problem in checker.problems] == [f"x.toml:1: odd: {said}"]


def test_a_rule_about_a_key_that_is_wrong_anyway_is_not_held_against_its_neighbour() -> None:
    said = errors('[limits.a]\nlane = "x"\nrate = "ten"\nburst = 5\n')
    assert [line.split(": ")[1] for line in said] == ["limits.a.rate"]


def test_the_environments_and_the_command_lines_errors_stand_beside_the_files() -> None:
    env = {
        "JOBSD_DATABASE_DSN": "x",
        "JOBSD_QUEUES__MAIL__CONCURENCY": "3",
        "JOBSD_LOG__LEVEL": "warn",
        "JOBSD_DNS__TRIES": "many",
        "JOBSD_SECRET_RELAY": "kept for secret://relay",
        "JOBSD_CONFIG": "config.toml",
        "PATH": "/bin",
    }
    assert errors("[log]\nlevle = 1", env=env, overrides={"daemon.leas": "1s", "a = 1": 2}) == [
        "config.toml:2: log.levle: unknown key; did you mean level?",
        "env JOBSD_DATABASE_DSN: no setting has this name; did you mean JOBSD_DATABASE__DSN?",
        "env JOBSD_QUEUES__MAIL__CONCURENCY: no setting has this name; did you mean JOBSD_QUEUES__MAIL__CONCURRENCY?",
        'env JOBSD_DNS__TRIES: dns.tries: the string "many" stands where an integer belongs',
        'env JOBSD_LOG__LEVEL: log.level: "warn" is none of "debug", "info", "warning", "error"; '
        'did you mean "warning"?',
        "command line: a = 1: is no path of a setting, like queues.default.concurrency",
        "command line: daemon.leas: unknown key; did you mean lease?",
    ]


def test_a_wrong_secret_is_never_repeated() -> None:
    for value in ('"hunter2"', '"postgresql://u:hunter2"', '"postgresql://u:hun/ter2@h/d"', "22022", '["hunter2"]'):
        text = (
            f"[database]\ndsn = {value}\n[email.relays.main]\nhost = 'h'\nusername = 'u'\npassword = {value}\nport = 0"
        )
        said = "\n".join(errors(text))
        assert "database.dsn" in said
        assert not {"hunter2", "hun", "22022"} & set(said.replace("'", " ").replace('"', " ").replace(":", " ").split())


def test_a_quoted_key_of_a_free_table_means_the_same_as_the_table() -> None:
    quoted = parse('[limits.a]\nrate = "1/s"\n"args.account" = "42"')
    table = parse('[limits.a]\nrate = "1/s"\nargs = { account = "42" }')
    assert quoted.limits["a"].args == {"account": "42"}
    assert quoted == table


def test_args_that_no_row_could_hold_are_refused() -> None:
    head = '[schedules.a]\nkind = "a"\ncron = "* * * * *"\n'
    for wrong in (
        "{d = 2026-01-01}",
        "{n = nan}",
        f"{{n = {2**64}}}",
        '{s = "\\u0000"}',
        f"{{a = {'[' * 40}{']' * 40}}}",
    ):
        assert [line.split(": ")[1] for line in errors(f"{head}args = {wrong}")] == ["schedules.a.args"]
    assert "256 KiB" in errors(f'{head}args = {{s = "{"x" * 200_000}"}}')[0]


def errors(text: str, **more: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, **more)
    return str(caught.value).splitlines()


# whatever is done to a config, it is either used or refused with a place

NEW = "\n"
LINES = [line for line in render_template().splitlines() if line and not line.startswith(("# ", "#\n"))]
VALUES = """
true|0|-1|9999999999999999999999999|1e400|nan|[]|{}|[[]]|{a = 1}|2026-01-01|'|"\\u0000"|""|"*"|"x"|"0"|"30s"|[1]|["x"]
"99999999999d"|"1/s"|"0.00001ms"|"é"|"secret://"|"1""1"|"9999999999GiB"|"[::1]:1"|"unix:x"|"postgresql://[/"|"\\n"
"* * * * *"|"@daily"|[[[[[[]]]]]]|["1s", "2s"]|{a = {b = [{}]}}|\'\'\'x\'\'\'|0x10|inf|07:32:00|"UTC"|"fixed"
"""
NAMED = ("queues", "kinds", "schedules", "limits", "email.relays", "email.dkim")


@st.composite
def mutants(draw: st.DrawFn) -> str:
    """The shipped file with some lines switched on, given another value, moved, doubled, cut or made up."""
    lines = list(LINES)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(LINES) - 1))
        line = lines[at].removeprefix("#")
        how = draw(
            st.sampled_from(["on", "value", "value", "value", "value", "move", "section", "key", "double", "garbage"])
        )
        match how:
            case "on":
                lines[at] = line
            case "value":
                lines[at] = (
                    f"{line.split(' = ')[0]} = {draw(st.sampled_from(VALUES.strip().replace(NEW, '|').split('|')))}"
                )
            case "move":
                lines[at] = ""
                lines[draw(st.integers(0, len(LINES) - 1))] += NEW + line
            case "section":
                lines.append(f"[{draw(st.sampled_from(NAMED))}.{quoted(draw(st.text(max_size=4)))}]{NEW}{line}")
            case "key":
                lines[at] = f"{quoted(draw(st.text(max_size=6)))}.{line}"
            case "double":
                lines[at] = line + NEW + line
            case "garbage":
                lines[at] = line[: draw(st.integers(0, len(line)))] + draw(st.text(max_size=6))
    return NEW.join(lines)


@settings(max_examples=examples(300))
@given(mutants())
def test_a_mutated_file_is_used_or_refused_with_a_place_and_never_anything_else(text: str) -> None:
    problems = problems_of(text, {})
    lines = {problem.origin.line for problem in problems}
    assert lines <= set(range(1, text.count("\n") + 2))
    assert all(problem.message for problem in problems)
    assert problems or tomllib.loads(text)


NAMES = [name for name, _, _ in variables(Config, Table(DEFAULT, {"queues": Table(DEFAULT, {"a": Table(DEFAULT)})}))]
TEXTS = st.one_of(
    st.text(max_size=8), st.sampled_from(["", "1", "1s", "true", ",", "a,b", "{}", "[", "\udcff", "9" * 5000])
)


@settings(max_examples=examples(150))
@given(st.dictionaries(st.sampled_from(NAMES), TEXTS, max_size=8), st.text(max_size=9).map("JOBSD_".__add__))
def test_any_environment_is_used_or_refused_by_the_variables_name(env: dict[str, str], unknown: str) -> None:
    env[unknown] = ""
    refused = {problem.origin.text.removeprefix("env ") for problem in problems_of("", env)}
    assert {unknown} <= refused <= set(env)


def problems_of(text: str, env: dict[str, str]) -> tuple[Problem, ...]:
    """What is wrong; ConfigError is the only exception there may be, and never an empty one."""
    try:
        parse(text, env=env)
    except ConfigError as error:
        return error.problems or (Problem(DEFAULT, "", ""),)
    return ()


def test_every_line_of_the_env_template_can_be_switched_on_by_itself() -> None:
    companions = {
        "SCHEDULES": {"JOBSD_SCHEDULES__NAME__KIND": "x", "JOBSD_SCHEDULES__NAME__CRON": "* * * * *"},
        "EMAIL": {"JOBSD_EMAIL__TOKEN_SECRETS": "secret://mail-tokens"},
        "LIMITS": {"JOBSD_LIMITS__NAME__RATE": "1/s", "JOBSD_LIMITS__NAME__PER": "lane"},
    }
    for line in env_template().splitlines():
        name, assigned, value = line.removeprefix("#").partition("=")
        if (
            line.startswith("#")
            and not line.startswith("# ")
            and assigned
            and not {"RELAYS", "DKIM", "PROVIDERS", "JOBSD_JOBS"} & set(name.split("__"))
            and "_FILE" not in name
        ):
            section = name.removeprefix("JOBSD_").split("__")[0]
            parse("", env={**companions.get(section, {}), name: value.strip('"')})
