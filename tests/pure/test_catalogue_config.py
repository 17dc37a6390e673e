"""[jobs.NAME] in the config: what each key may be, said with its place and the way out of an error."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import sql
from daemon.config import ConfigError, parse
from daemon.config_diff import diff
from daemon.config_json_schema import json_schema
from daemon.config_template import SAMPLE, render_template
from daemon.cron import stagger_s
from jobs.catalogue.pace import AIM_S, Pace
from jobs.catalogue.skeleton import Blocks, Sql
from jobs.catalogue.verbs import VERBS

HOUSE = Path(__file__).parent.parent.parent
GOOD = '[jobs.spam]\nverb = "purge"\ntable = "app.spam"\nage_column = "at"\nretention = "30d"\n'
EXPORT = """[jobs.data]
verb = "export_account"
table = "a.accounts"
deleted_column = "d"
requests = "a.exports"
address_column = "e"
"""


def wrong(text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        parse(text)
    return [str(problem) for problem in raised.value.problems]


@pytest.mark.req("BJ-28")
def test_a_job_has_a_schedule_of_its_name_that_its_name_spreads() -> None:
    config = parse(GOOD + 'schedule = "17 3 * * *"\n')
    schedule = config.all_schedules["spam"]
    assert (schedule.kind, schedule.cron, schedule.queue, schedule.priority) == ("spam", "17 3 * * *", "cleanup", 4)
    assert schedule.spread == pytest.approx(600)
    assert 0 < stagger_s("spam", schedule.spread) < 600
    assert parse(GOOD + 'schedule = "*/5 * * * *"\n').all_schedules["spam"].spread == pytest.approx(30), (
        "a tenth of five minutes"
    )
    assert parse(GOOD + 'schedule = "@daily"\nspread = "2h"\n').all_schedules["spam"].spread == pytest.approx(7200)
    assert parse(GOOD).all_schedules == {}


@pytest.mark.req("BJ-28")
def test_clean_up_comes_after_notifications() -> None:
    schedule = parse(GOOD + 'schedule = "@daily"\n').all_schedules["spam"]
    assert (
        schedule.priority > parse('[schedules.mail]\nkind = "email"\ncron = "@daily"\n').all_schedules["mail"].priority
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[jobs.x]\n", 'config.toml:1: jobs.x.verb: is missing. What it does. One of "purge", "expire"'),
        ('[jobs.x]\nverb = "purg"\n', 'config.toml:2: jobs.x.verb: "purg" is none of "purge"'),
        ("[jobs.x]\nverb = 7\n", "config.toml:2: jobs.x.verb: the integer 7 is none of"),
        (GOOD + 'tabel = "a"\n', "config.toml:6: jobs.spam.tabel: unknown key; did you mean table?"),
        (GOOD.replace("app.spam", "a b"), 'config.toml:3: jobs.spam.table: \'a b\' is no table; write it like "app.'),
        (GOOD + 'schedule = "99 1 * * *"\n', "config.toml:6: jobs.spam.schedule: minute: '99' is not 0-59"),
        (GOOD + 'schedule = "@daily"\ntimezone = "Mars"\n', "config.toml:7: jobs.spam.timezone: "),
        (GOOD + 'schedule = "@daily"\nqueue = "a b"\n', "config.toml:7: jobs.spam.queue: 'a b' is no queue"),
        (
            GOOD + 'schedule = "@daily"\n[schedules.spam]\nkind = "heartbeat"\ncron = "@daily"\n',
            "config.toml:6: jobs.spam.schedule: there is a [schedules.spam] too; keep one of them",
        ),
        (GOOD + "where = { s = { nulll = true } }\n", "config.toml:6: jobs.spam.where: s: 'nulll' is no comparison"),
        (GOOD + "where = { s = [] }\n", "config.toml:6: jobs.spam.where: s: takes 1 to 1000 values"),
        (GOOD + "where = { s = { older_than = 30 } }\n", "s: older_than is a duration, like \"30d\""),
        (GOOD + 'idle_column = "seen"\n', "config.toml:1: jobs.spam.idle_retention: belongs to idle_column; give both"),
        (
            GOOD + 'longer_where = { a = 1 }\nlonger_retention = "1d"\n',
            "config.toml:7: jobs.spam.longer_retention: is shorter than retention",
        ),
        ('[jobs.x]\nverb = "expire"\ntable = "t"\nexpires_column = "e"\n', "jobs.x.set: say what changes: set, clear"),
        (
            '[jobs.x]\nverb = "tokens"\ntable = "t"\nexpires_column = ""\n',
            "config.toml:4: jobs.x.expires_column: '' can be no column",
        ),
        (
            GOOD + 'warn_before = "1d"\nwarn_column = "w"\n',
            "jobs.spam.owner_email: a warning goes there; give the column with the address",
        ),
        (
            GOOD + 'warn_before = "1d"\nwarn_column = "w"\nowner_email = "e"\n',
            "config.toml:2: jobs.spam.warn_from: nobody would be the sender of its mail: give this, or email.from",
        ),
        (
            GOOD + 'warn_before = "1d"\nwarn_column = "w"\nowner_email = "e"\nwarn_from = "Desk <desk>"\n',
            "config.toml:9: jobs.spam.warn_from: ",
        ),
        (
            GOOD + 'warn_before = "1d"\nwarn_column = "w"\nowner_email = "e"\nwarn_subject = "Soon\\n"\n',
            "config.toml:9: jobs.spam.warn_subject: 'Soon\\n' has the control character U+000A",
        ),
        (
            EXPORT + 'mail_subject = "Here\\tit is"\n',
            "jobs.data.mail_subject: 'Here\\tit is' has the control character U+0009",
        ),
        (EXPORT + 'mail_from = "us"\n', "jobs.data.mail_from: 'us' is no mailbox"),
        (GOOD + 'totals_table = "t"\ntotals_by = { a = "a" }\n', "jobs.spam.totals_count: give totals_count"),
        (GOOD + 'audit_table = "t"\naudit_values = { n = "{rows} {id}" }\n', "{rows} counts a batch, and a column"),
        (
            GOOD + 'archive = true\ntogether = { "app.notes" = "spam_id" }\n',
            "config.toml:7: jobs.spam.together: rows of app.notes would go and be in no archive, which has rows of "
            "app.spam alone; leave them out here, and give app.notes a purge of its own with archive = true",
        ),
        ("[jobs.'a b']\n", 'jobs: "a b" cannot be a name here'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place_and_the_fix(text: str, said: str) -> None:
    assert any(said in one for one in wrong(text)), wrong(text)


@pytest.mark.req("BJ-04")
def test_whoever_warns_has_a_sender_or_nobody_would_be_told_of_what_is_deleted() -> None:
    warns = GOOD + 'warn_before = "1d"\nwarn_column = "w"\nowner_email = "e"\n'
    relay = '[email.relays.main]\nhost = "127.0.0.1"\ntls = "none"\n'
    assert parse(warns + f'[email]\nfrom = "shop@shop.example"\n{relay}').warnings == ()
    assert parse(warns + f'warn_from = "Desk <desk@shop.example>"\n{relay}').warnings == ()
    (doubt,) = parse(warns + 'warn_from = "desk@shop.example"\n').warnings
    assert "no relay is called main: mail of jobs.spam becomes dead letters" in doubt.message


def test_each_verb_is_found_under_its_name_and_none_is_imported_before_it_is_asked_for() -> None:
    assert [verb.name for verb in VERBS.values()] == list(VERBS)
    program = (
        "import sys; import daemon.config as config; from jobs.catalogue.verbs import PLACES; config.parse('')\n"
        "loaded = {place.partition(':')[0] for place in PLACES.values()} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_job_can_come_from_the_environment_and_be_compared() -> None:
    env = {
        "JOBSD_JOBS__SPAM__RETENTION": "60d",
        "JOBSD_JOBS__OTHER__VERB": "purge",
        "JOBSD_JOBS__OTHER__TABLE": "t",
        "JOBSD_JOBS__OTHER__AGE_COLUMN": "a",
        "JOBSD_JOBS__OTHER__RETENTION": "1h",
    }
    config = parse(GOOD, env=env)
    found = diff(parse(GOOD), config)
    assert [str(change) for change in found.changed] == ['jobs.spam.retention: "30d" → "60d"']
    assert found.added == ("jobs.other",)
    with pytest.raises(ConfigError, match=r"did you mean JOBSD_JOBS__SPAM__TABLE\?"):
        parse(GOOD, env={"JOBSD_JOBS__SPAM__TABEL": "x"})


def test_the_schema_of_the_file_has_every_verb_with_its_own_keys() -> None:
    jobs = json_schema()["properties"]["jobs"]["additionalProperties"]["oneOf"]
    assert [one["properties"]["verb"]["const"] for one in jobs] == list(VERBS)
    assert {"table", "retention", "schedule"} <= jobs[0]["properties"].keys()


def test_a_deadline_of_a_job_is_its_own() -> None:
    config = parse(GOOD + '[queues.cleanup]\ntimeout = "1m"\n')
    assert config.timeout_s("spam", "cleanup", None) == 3600
    assert config.timeout_s("other", "cleanup", None) == 60


# --- the sample's, in the shipped file -------------------------------------------------------------------------------


@pytest.mark.req("BJ-23")
@pytest.mark.req("BJ-28")
def test_the_shipped_file_ends_with_the_samples_jobs_switched_off_and_they_can_be_switched_on() -> None:
    """Each says when it comes, what comes before it, and what it is for."""
    shipped, upkeep = render_template(), sql.text("reference/jobs.toml")
    before, mark, switched_off = shipped.partition(SAMPLE)
    assert mark
    assert parse(shipped).jobs == {}, "a database may have tables that are called so"
    switched_on = re.sub(r"^#(?=[^ \n])", "", switched_off, flags=re.MULTILINE).strip() + "\n"
    assert switched_on == upkeep
    assert parse(before + switched_on).jobs == parse(upkeep).jobs
    for name, job in tomllib.loads(switched_on)["jobs"].items():
        assert {"description", "schedule", "priority"} <= job.keys(), name
        assert (job["priority"] == 4) == (job["verb"] in ("purge", "tokens")), "clean-up comes last"


# --- statements -------------------------------------------------------------------------------------------------------


def test_statements_about_tables_of_the_config_are_put_together_in_one_place() -> None:
    """Nobody else makes Sql, or puts text into one."""
    found = []
    for path in (HOUSE / "jobs").rglob("*.py"):
        if path.name == "skeleton.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name(id="Sql")):
                    found.append(f"{path}:{node.lineno}: makes Sql")
                case ast.Call(func=ast.Name(id="trusted")) if path.name not in ("ground.py", "archived.py"):
                    found.append(f"{path}:{node.lineno}: trusts a text")
                case ast.JoinedStr() if path.parent.name in ("catalogue", "cleanup"):
                    said = "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant)).lower()
                    if re.match(r"\s*(select|insert|update|delete|with)\b", said):
                        found.append(f"{path}:{node.lineno}: formats a statement")
    assert found == []


def test_a_place_takes_nothing_but_what_was_quoted() -> None:
    blocks = Blocks("predicates.sql")
    with pytest.raises(TypeError, match="column of null is text, not Sql"):
        blocks.fill("null", column="x")  # type: ignore[arg-type]  # the point
    with pytest.raises(KeyError):
        blocks.fill("null")
    with pytest.raises(ValueError, match="no place colum"):
        blocks.fill("null", column=Sql("x"), colum=Sql("y"))
    assert blocks.fill("null", column=Sql('"{column}"')) == 'and "{column}" is null', (
        "what is filled in is not filled again"
    )


# --- pace -------------------------------------------------------------------------------------------------------------


@pytest.mark.req("BJ-29")
def test_batches_come_to_take_a_tenth_of_a_second_whatever_a_row_costs() -> None:
    for row_s in (1e-5, 1e-4, 1e-3, 0.02):
        pace = Pace(50_000)
        for _ in range(20):
            pace.took(pace.rows * row_s, pace.rows)
        assert 0.5 * AIM_S <= pace.rows * row_s <= 1.5 * AIM_S or pace.rows == 1


def test_one_slow_batch_or_one_short_one_does_not_upset_the_pace() -> None:
    pace = Pace(1000)
    for _ in range(10):
        pace.took(0.01, pace.rows)
    assert pace.rows == 1000
    pace.took(60.0, pace.rows)
    assert pace.rows == 250
    pace.took(0.001, 3)
    assert pace.rows == 250, "a page that was not full says nothing of a full one"
