"""[jobs.NAME] with the verbs `rollup` and `threshold`: what is wrong is said with its key and the way out."""

from __future__ import annotations

import pytest

from daemon.config import ConfigError, parse

ROLLUP = """[jobs.x]
verb = "rollup"
source = "a.b"
into = "a.c"
by = ["who"]
time_column = "at"
bucket_column = "day"
sums = { n = "m" }
"""
THRESHOLD = """[jobs.x]
verb = "threshold"
cycles = "a.cycles"
allowed_column = "quota"
used_column = "used"
events = "a.events"
event_columns = { cycle = "id", percent = "@threshold" }
"""
MAILED = 'email_column = "address"\n'


@pytest.mark.req("BJ-23")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ROLLUP.replace('["who"]', "[]"), "jobs.x.by: name at least one column"),
        (ROLLUP.replace('sums = { n = "m" }\n', ""), "jobs.x.sums: add up a column, or count rows in count_column"),
        (ROLLUP + 'count_column = "n"\n', "jobs.x.sums: n of `into` would be written twice"),
        (ROLLUP + 'computed_column = "day"\n', "jobs.x.sums: day of `into` would be written twice"),
        (ROLLUP.replace("a.c", "a.b"), "jobs.x.into: is the source"),
        (ROLLUP + 'bucket_timezone = "Mars"\n', "jobs.x.bucket_timezone: 'Mars' is none; write it like"),
        (ROLLUP + 'bucket = "fortnight"\n', "jobs.x.bucket: "),
        (ROLLUP + 'retention = "1m"\n', "jobs.x.retention: "),
        (ROLLUP.replace("a.b", "a b"), "jobs.x.source: 'a b' is no table"),
        (THRESHOLD + 'usage = "a.used"\n', "jobs.x.usage: goes with by and time_column; give all three"),
        (THRESHOLD + "thresholds = []\n", "jobs.x.thresholds: give percents from 1 to 1000"),
        (THRESHOLD + "thresholds = [0]\n", "jobs.x.thresholds: give percents from 1 to 1000"),
        (THRESHOLD + "sliding_from = 2.0\n", "jobs.x.sliding_from: "),
        (THRESHOLD + 'usage_timezone = "Mars"\n', "jobs.x.usage_timezone: 'Mars' is none"),
        (THRESHOLD.replace('"id"', '"=1"'), "jobs.x.event_columns: a column must have 'id'"),
        (THRESHOLD.replace("@threshold", "@treshold"), "percent: '@treshold' is no word; there are @threshold"),
        (THRESHOLD + MAILED + 'email_subject = "a\\nb"\n', "jobs.x.email_subject: 'a\\nb' has the control character"),
        (THRESHOLD + 'email_text = "{percentage} %"\n', "jobs.x.email_text: {percentage} would stand there as it is"),
        (THRESHOLD + MAILED + 'email_from = "me"\n', "jobs.x.email_from: 'me' is no mailbox"),
        (THRESHOLD + 'notify = "a.n"\n', "jobs.x.notify: goes with notify_columns; give both"),
    ],
)
def test_what_is_wrong_is_said_with_its_key(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse(text)
    assert any(said in str(problem) for problem in raised.value.problems), raised.value.problems


@pytest.mark.req("BJ-28")
def test_who_is_told_comes_before_sums_and_these_before_clean_up() -> None:
    at = 'schedule = "@daily"\n'
    jobs = parse(ROLLUP + at + THRESHOLD.replace("jobs.x", "jobs.y") + at).all_schedules
    assert (jobs["y"].priority, jobs["x"].priority) == (2, 3)
