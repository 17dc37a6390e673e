"""The demo shows what it promises, its commands work as they stand, and nothing of it is left behind."""

from __future__ import annotations

import base64
import contextlib
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import dkim
import pytest
from standardwebhooks import Webhook

from daemon import demo_home
from daemon.demo_dkim import is_signed_by
from daemon.demo_home import Home
from daemon.demo_moods import FirstTime
from daemon.demo_news import news
from daemon.demo_rows import SAMPLES, Sample, difference
from daemon.demo_sinks import HOST, Sinks
from daemon.demo_upkeep import JOBS
from daemon.demo_webhooks import TOLERANCE_S, is_signed
from daemon.embedded import Embedded
from daemon.exits import CONFIG, Exit
from daemon.settle import Transition, hand_back
from jobs.context import Ledger
from jobs.email.dkim import Signer
from jobs.email.dkim_keys import SigningKey, private_key
from jobs.email.dkim_settings import DkimSettings
from jobs.model import Job
from jobs.secrets import Secrets
from jobs.values import Secret
from tests.jobs.email.dkim_keys import dns_of, ed25519_pem

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to run the server as somebody else")

PATIENCE_S = 180.0
ONCE = """
import sys
from pathlib import Path
from daemon.demo import run_demo
sys.exit(run_demo(Path(sys.argv[1]), once=True, deadline_s=180.0))
"""
"""A minute, as people have it, is not enough on a machine that is busy with something else."""


class Running:
    """A demo in a process of its own, whose output is read all the time."""

    def __init__(self, folder: Path, *command: str, stdout: int = subprocess.PIPE, **env: str) -> None:
        self.folder = folder
        self.output = b""
        self.process = subprocess.Popen(
            [sys.executable, *command, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **env},
        )
        self._heard = threading.Condition()
        self._reader: threading.Thread | None = None

    def hear(self, descriptor: int) -> None:
        self._reader = threading.Thread(target=self._read, args=(descriptor,), daemon=True)
        self._reader.start()

    def _read(self, descriptor: int) -> None:
        with contextlib.suppress(OSError):  # the far end of a terminal closes with an error
            while part := os.read(descriptor, 65536):
                with self._heard:
                    self.output += part
                    self._heard.notify_all()

    @property
    def text(self) -> str:
        return self.output.decode()

    def saw(self, wanted: str) -> str:
        """All output, once `wanted` (a regular expression) is in it."""
        with self._heard:
            found = self._heard.wait_for(lambda: re.search(wanted, self.text), PATIENCE_S)
        assert found, f"{wanted!r} is not in:\n{self.text}"
        return self.text

    def end(self, *numbers: signal.Signals) -> int:
        """The exit code."""
        for number in numbers:
            self.process.send_signal(number)
        code = self.process.wait(PATIENCE_S)
        if self._reader is not None:
            self._reader.join(PATIENCE_S)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self._reader is not None:
            self._reader.join(PATIENCE_S)
        if self.process.stdout is not None:
            self.process.stdout.close()


def piped(folder: Path, *command: str) -> Running:
    running = Running(folder, *command)
    assert running.process.stdout is not None
    running.hear(running.process.stdout.fileno())
    return running


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """Outside pytest's own folders, which the account that runs PostgreSQL may not enter."""
    folder = Path(tempfile.mkdtemp(prefix="jobsd-demo-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)  # a server that is just ending removes files of its own meanwhile


@pytest.fixture(scope="module")
def once(scratch: Path) -> Iterator[Running]:
    """Ends by itself."""
    running = piped(scratch / "once", "-c", ONCE)
    try:
        running.saw("ready after")  # and has its ports
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def demo(scratch: Path, once: Running) -> Iterator[Running]:
    """Stays; `once` was started before it, so that their waits overlap."""
    running = piped(scratch / "stays", "-m", "daemon", "demo", "--state-dir")
    try:
        running.saw(r"Ctrl-C stops everything")
        yield running
    finally:
        running.close()


def shell(demo: Running, command: str, **env: str) -> str:
    """What a command prints in a shell that has read the demo's `env`, anywhere else on the machine."""
    done = subprocess.run(
        ["sh", "-c", f". {demo.folder}/env\n{command}"],
        cwd="/",
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def shown_commands(text: str) -> list[str]:
    """The lines of the last block that are indented by two."""
    block = text[text.index("Try next") :].split("Ctrl-C")[0]
    return [line[2:] for line in block.splitlines() if line.startswith("  ")]


def servers(folder: Path) -> list[int]:
    """Processes of PostgreSQL that work in the folder's database."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cwd").readlink() == folder.resolve() / "postgres" / "data":
                found.append(int(entry.name))
    return found


def left(folder: Path) -> list[int]:
    """Those that are still there when they have had time to be gone: a server may exit before its last child."""
    until = time.monotonic() + 10
    while (found := servers(folder)) and time.monotonic() < until:
        time.sleep(0.02)
    return found


# --- the whole of it --------------------------------------------------------------------------------------------------


def test_a_delivery_of_every_channel_is_seen(demo: Running) -> None:
    demo.saw(r"webhook +#\d+  /orders → 204 in \d+ ms")
    demo.saw(r"email +#\d+  ada@shop\.example → 250")
    demo.saw(r"dns +#\d+  TXT shop\.example → match")


def test_failures_and_their_retries_are_seen(demo: Running) -> None:
    demo.saw(r"/flaky → 503 in \d+ ms, again in \d\.\d s +· its receiver fails at first")
    demo.saw(r"/flaky → 204 in \d+ ms \(attempt 2\)")
    demo.saw(r"busy@shop\.example → 450 4\.2\.1 .*, again in")
    demo.saw(r"/gone → 410 in \d+ ms, dead")
    demo.saw(r"thumbnail .* no daemon serves this kind")


def test_every_command_it_shows_works_as_it_stands(demo: Running) -> None:
    text = demo.saw(r"due in 5 s")
    env, *commands = shown_commands(text)
    assert env == f". {demo.folder}/env"
    insert = "\n".join(commands[-2:])
    with ThreadPoolExecutor(4) as at_once:
        said = at_once.map(lambda command: shell(demo, command), commands[:-2])
    printed = dict(zip((command.split(" --")[0] for command in commands), said, strict=False))
    assert "webhook" in printed["jobsd jobs list"]
    waiting = next(text for command, text in printed.items() if command.startswith("jobsd jobs explain"))
    assert "thumbnail" in waiting
    assert "http_410" in printed["jobsd dead list"]
    assert "default" in printed["jobsd stats"]
    new_id = printed["jobsd enqueue heartbeat"].strip()
    assert any(command.startswith("psql -c") and "rows)" in text for command, text in printed.items())
    assert any("jobsd_attempts_total{" in text for text in printed.values()) or shutil.which("curl") is None
    assert shell(demo, f"psql -v ON_ERROR_STOP=1 <<'END'\n{insert}\nEND").strip() == "INSERT 0 1"
    demo.saw(rf"heartbeat +#{new_id}  done")
    assert "; demo: published" in printed["jobsd email dkim"]
    assert max(map(len, text[text.index("Try next") :].splitlines()[2:13])) < 80


def test_a_shell_that_meant_another_database_means_the_demo_now(demo: Running) -> None:
    elsewhere = {"DATABASE_URL": "postgresql://127.0.0.1:1/nowhere", "PGHOST": "127.0.0.1", "PGPORT": "1"}
    assert shell(demo, "jobsd stats --json", **elsewhere)
    assert shell(demo, "psql -tAc 'select 1'", **elsewhere).strip() == "1"


def test_the_statements_it_ran_are_all_in_a_file(demo: Running) -> None:
    script = (demo.folder / "rows.sql").read_text()
    assert script.count("insert into jobs") == len(SAMPLES)
    assert shell(demo, f"psql -q -v ON_ERROR_STOP=1 -f {demo.folder}/rows.sql") == ""


def test_the_signing_secret_is_nobody_elses_to_read(demo: Running) -> None:
    assert (demo.folder / "secrets").stat().st_mode & 0o077 == 0
    assert "whsec_" not in (demo.folder / "demo.toml").read_text() + demo.text


def test_a_second_demo_in_the_same_folder_is_refused(demo: Running) -> None:
    second = piped(demo.folder, "-m", "daemon", "demo", "--state-dir")
    try:
        code = second.end()
    finally:
        second.close()
    assert code == 69
    assert re.fullmatch(r"jobsd: another demo runs in .*: stop that one, .*--state-dir\n", second.text)


def test_a_change_of_its_settings_counts_at_once(demo: Running) -> None:
    settings = demo.folder / "demo.toml"
    settings.write_text(settings.read_text().replace('rate = "1/s"', 'rate = "50/s"'))
    demo.process.send_signal(signal.SIGHUP)
    demo.saw(r"settings .* read again, changed: limits\.partner\.rate")


def test_ctrl_c_stops_all_of_it_and_leaves_no_process(demo: Running) -> None:
    assert servers(demo.folder)
    assert demo.end(signal.SIGINT) == 0
    assert "stopped: " in demo.text
    assert left(demo.folder) == []
    assert not (demo.folder / "pid").exists()


async def test_every_sample_row_comes_to_its_end(once: Running) -> None:
    assert once.end() == 0, once.text
    assert f"all {len(SAMPLES)} rows are as they must be" in once.text
    assert left(once.folder) == []
    server = Embedded(once.folder / "postgres")
    conn = await asyncpg.connect(await server.start())
    try:
        states = await conn.fetch(
            "select kind, state, attempt, count(*) from job_status "
            "where coalesce(lane, '') not like 'endpoint:%' and (kind <> 'email' or org_id is null) group by 1, 2, 3"
        )
        wanted = Counter((kind_of(sample), sample.state, sample.attempt) for sample in SAMPLES)
        found = {
            tuple(row)[:3]: row["count"]
            for row in states
            if row["kind"] in ("webhook", "email", "dns_check", "thumbnail")
        }
        assert found == dict(wanted)
        statuses = await conn.fetch("select status, count(*) from webhook_deliveries where event_id is null group by 1")
        assert {(204, 8), (503, 2), (500, 2), (410, 1), (None, 1)} == {tuple(row) for row in statuses}
        codes = await conn.fetch("select smtp_code from email_deliveries where org_id is null order by 1")
        assert [row[0] for row in codes] == [250, 250, 450, 550]
        verdicts = await conn.fetch("select verdict from domain_checks where domain_id is null order by 1")
        assert [row[0] for row in verdicts] == ["absent", "indeterminate", "match", "match", "mismatch"]
    finally:
        await conn.close()
        await server.stop()


async def test_what_it_tells_of_endpoints_is_what_the_database_says(once: Running) -> None:
    assert once.end() == 0, once.text
    told = " ".join(once.text.split())
    assert "1 event, 3 deliveries; crm, ledger and stock have it, under the same webhook-id msg_e1" in told
    assert re.search(r"lane +endpoint:\d+ is left alone for \d\.\d s +· http_500", told)
    assert re.search(r"lane +endpoint:\d+ is well again", told)
    assert "13 of 13 messages came, 13 of them under a webhook-id that stock has seen" in told
    left_alone = re.search(r"after (\d+) failures: (\d+) of its 12 deliveries wait", told)
    in_the_end = re.search(r"12 of 12\. Of (\d+) attempts (\d+) failed; (\d+) deliveries went well at the first", told)
    assert left_alone, told
    assert in_the_end, told
    early, untried = map(int, left_alone.groups())
    sent, failed, at_first = map(int, in_the_end.groups())
    server = Embedded(once.folder / "postgres")
    conn = await asyncpg.connect(await server.start())
    try:
        tries = await conn.fetch(
            "select endpoint, count(*), count(*) filter (where status = 500) from webhook_deliveries "
            "where event = 'order.paid' and event_id > 1 and replay_id is null group by 1"
        )
        assert {tuple(row) for row in tries} == {("crm", 12, 0), ("ledger", 12, 0), ("stock", sent, failed)}
        well = "select count(*) from webhook_deliveries where endpoint = 'stock' and outcome = 'ok'"
        assert await conn.fetchval(f"{well} and event_id > 1 and attempt = 1 and replay_id is null") == at_first
        assert await conn.fetchval(f"{well} and replay_id is not null") == 13
    finally:
        await conn.close()
        await server.stop()
    assert early >= 5, "so many failures close a lane"
    assert early + untried >= 12, "who was not tried was waiting"
    assert sent == 12 + failed
    assert 0 < at_first <= untried


async def test_what_it_tells_of_domains_is_what_the_database_says(once: Running) -> None:
    assert once.end() == 0, once.text
    told = " ".join(once.text.split())
    states = re.findall(r"domain +#\d+ customer\.example → (\w+), (\w+) in \d+ ms", told)
    assert states == [
        ("absent", "pending"),
        ("match", "verified"),
        ("indeterminate", "verified"),
        ("mismatch", "degraded"),
        ("match", "verified"),
    ]
    assert "ns2.shop.example lacks it, while ns1.shop.example has it." in told
    assert re.search(r"expected “token=[a-z2-7]{32}”, found “token=of-another-shop”", told)
    server = Embedded(once.folder / "postgres")
    conn = await asyncpg.connect(await server.start())
    try:
        checks = await conn.fetch(
            "select verdict, state_after, conclusion from domain_checks where domain_id is not null order by ended_at"
        )
        assert [(row["verdict"], row["state_after"]) for row in checks] == states
        assert all(" ".join(row["conclusion"].split()) in told for row in checks)
        heard = "select count(*) from webhook_deliveries where event = 'domain.verified' and status = 204"
        assert await conn.fetchval(heard) == 1, "its owner is told of the first time only"
    finally:
        await conn.close()
        await server.stop()


async def test_what_it_tells_of_mail_is_what_the_database_says(once: Running) -> None:
    assert once.end() == 0, once.text
    assert re.search(r"grey@shop\.example → 451 4\.7\.1 in \d+ ms, again in", once.text)
    assert "And grey has the first one, at attempt 2, its DKIM signature as it must be" in " ".join(once.text.split())
    assert re.search(r"ada@shop\.example → 250, gone@shop\.example → suppressed\n", once.text)
    assert "Subject: 3 orders were paid\n  - order 5001\n  - order 5002\n  - order 5003\n" in once.text
    assert re.search(r"jobsd email srs SRS0=\w{8}=\w\w=shop\.example=orders@fwd\.shop\.example\n", once.text)
    assert "That is orders@shop.example\n" in once.text
    key = SigningKey("shop.example", "demo", private_key((once.folder / "secrets" / "dkim").read_text()))
    mails = [path.read_bytes() for path in (once.folder / "mail").glob("*.eml")]
    assert all(dkim.verify(mail, dnsfunc=dns_of([key])) for mail in mails)
    (forwarded,) = (mail for mail in mails if mail.startswith(b"X-Jobsd-Loop"))
    (original,) = (mail for mail in mails if forwarded.endswith(mail) and mail != forwarded)
    assert b"Subject: 3 orders were paid" in original
    server = Embedded(once.folder / "postgres")
    conn = await asyncpg.connect(await server.start())
    try:
        said = await conn.fetch("select recipient, outcome from email_deliveries where org_id = 'acme'")
        assert Counter(map(tuple, said)) == {
            ("grey@shop.example", "soft"): 1,
            ("grey@shop.example", "delivered"): 1,
            ("gone@shop.example", "hard"): 1,
            ("gone@shop.example", "suppressed"): 1,
            ("ada@shop.example", "delivered"): 2,
            ("ada@home.example", "delivered"): 1,
        }
        left = "select org_id, recipient, reason from email_suppressions where expires_at > now()"
        assert [tuple(row) for row in await conn.fetch(left)] == [(None, "nobody@shop.example", "bounce")]
    finally:
        await conn.close()
        await server.stop()


@pytest.mark.req("BJ-10", "BJ-11")
async def test_what_it_tells_of_upkeep_is_what_the_database_says(once: Running) -> None:
    assert once.end() == 0, once.text
    told = " ".join(once.text.split())
    events = re.search(r"(\d+) events the first time, 0 the second", told)
    assert events, told
    far = [int(percent) for percent in re.findall(r"spam_expiry has come to (\d+) %", told)]
    assert far, "its progress is read while it runs"
    assert far == sorted(far)
    assert not re.search(rf"(?:{'|'.join(JOBS)}) .*no daemon serves", once.text), "it has them, and lacks their tables"
    waited = re.findall(r"(\w+) +its tables were not there at the last look", once.text)
    assert sorted(waited) == sorted(re.findall(r"(\w+) +its tables are there: its rows go on", once.text))
    server = Embedded(once.folder / "postgres")
    conn = await asyncpg.connect(await server.start())
    try:
        assert await conn.fetchval("select count(*) from app.usage_events") == int(events[1]) > 0
        late = "select count(*) from app.spam_quarantine where quarantined_at < now() - interval '31 days'"
        assert await conn.fetchval(late) == 0
        sums = "select sum(bytes_used) = (select sum(bytes) from app.bandwidth) from app.bandwidth_daily"
        assert await conn.fetchval(sums)
    finally:
        await conn.close()
        await server.stop()


def test_rows_that_did_not_end_in_time_are_named_and_make_it_fail(once: Running) -> None:
    once.end()
    hasty = piped(once.folder, "-c", ONCE.replace("=180.0", "=0.0"))
    try:
        code = hasty.end()
    finally:
        hasty.close()
    assert code == 1
    assert re.search(r"row \d+ \(due in 5 s\) is ready, attempt 0, later instead of done, attempt 1", hasty.text)


def kind_of(sample: Sample) -> str:
    found = re.search(r"values \('(\w+)'", sample.statement)
    assert found
    return found[1]


def test_a_terminal_is_given_back_as_it_was(scratch: Path, once: Running) -> None:
    once.end()
    ours, theirs = pty.openpty()
    try:
        folder = once.folder  # warm, so that this takes a second
        running = Running(folder, "-m", "daemon", "demo", "--state-dir", stdout=theirs, TERM="xterm", NO_COLOR="1")
        os.close(theirs)
        running.hear(ours)
        try:
            running.saw(r"Ctrl-C stops everything|Ctrl-C st")
            assert running.end(signal.SIGTERM) == 0
        finally:
            running.close()
    finally:
        os.close(ours)
    assert running.text.rindex("\x1b[?25h") > running.text.rindex("\x1b[?25l")  # the cursor shows again
    assert not re.search(r"\x1b\[[\d;]*3[0-7]", running.text)  # NO_COLOR
    assert servers(folder) == []


def test_it_ends_when_nobody_reads_any_more(once: Running) -> None:
    once.end()
    running = Running(once.folder, "-m", "daemon", "demo", "--state-dir")
    try:
        assert running.process.stdout is not None
        select.select([running.process.stdout], [], [], PATIENCE_S)
        running.process.stdout.close()
        assert running.end() == 0
    finally:
        running.close()
    assert left(once.folder) == []


# --- where it lives ---------------------------------------------------------------------------------------------------


@as_root
def test_roots_closed_folder_is_no_place_and_another_is_taken(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.chdir(closed)
    monkeypatch.setattr(demo_home, "ELSEWHERE", scratch / "elsewhere")
    home = Home(None)
    home.release()
    assert home.folder == (scratch / "elsewhere").resolve()
    with pytest.raises(Exit, match=r"may not enter .*: choose another --state-dir, or allow it: chmod o\+x") as refused:
        Home(closed / "asked-for")
    assert refused.value.code == CONFIG


async def test_a_port_that_is_taken_is_replaced_by_a_free_one(tmp_path: Path) -> None:
    secret = f"whsec_{base64.b64encode(bytes(32)).decode()}"
    key = SigningKey("shop.example", "s", private_key(ed25519_pem()))
    async with Sinks(secret, tmp_path, key) as first, Sinks(secret, tmp_path, key) as second:
        ours, others = first.ports(), second.ports()
        for port in (others.webhook, others.mail, others.dns):
            with socket.create_connection((HOST, port), timeout=5):
                pass
    assert not {ours.webhook, ours.mail, ours.dns} & {others.webhook, others.mail, others.dns}


# --- what it says -----------------------------------------------------------------------------------------------------


def attempt(kind: str = "webhook", number: int = 1) -> Job:
    return Job(7, 1, kind, "default", 2, number, "{}", 0.0)


def test_a_line_says_what_happened_and_what_comes_next() -> None:
    row = {"url": "http://127.0.0.1:9465/flaky", "status": 503, "code": "http_503", "duration_ms": 3.2}
    retry = Transition(attempt(), "ready", "retry", "the receiver answered 503", "http_503", delay_s=2.0, failed=True)
    retry.records = [(Ledger("webhook_deliveries"), row)]
    line = news(retry, "fails at first")
    assert line is not None
    assert line.text == "webhook       #7  /flaky → 503 in 3 ms, again in 2.0 s"
    assert (line.tone, line.note) == ("wait", "fails at first")


def test_a_row_that_was_not_tried_is_no_news() -> None:
    assert news(hand_back(attempt(), gate="limit:partner")) is None


def test_a_job_cannot_drive_the_terminal() -> None:
    dead = Transition(attempt("report"), "dead", "dead", "\x1b[2Jgone\n", "failed", failed=True)
    line = news(dead)
    assert line is not None
    assert line.text.isprintable()


def test_a_row_is_judged_by_its_state_its_attempts_and_its_reason() -> None:
    sample = Sample("", "", "dead", 2, "http_500")
    right = {"state": "dead", "attempt": 2, "why": "http_500"}
    assert difference(sample, right) is None
    assert difference(sample, None) == "is in no table"
    for wrong in ({"state": "done"}, {"attempt": 3}, {"why": "timeout"}):
        assert difference(sample, {**right, **wrong})


# --- the receivers ----------------------------------------------------------------------------------------------------


def test_a_signature_is_believed_only_over_the_same_bytes_and_for_a_while() -> None:
    key, body, at = bytes(range(32)), b'{"order": 7}', datetime.now(UTC)
    signature = Webhook(base64.b64encode(key).decode()).sign("msg_7", at, body.decode())
    headers = {"webhook-id": "msg_7", "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}
    late = (at + timedelta(seconds=TOLERANCE_S + 2)).timestamp()
    assert is_signed(key, headers, body, at.timestamp())
    assert not is_signed(key, headers, body + b" ", at.timestamp())
    assert not is_signed(bytes(32), headers, body, at.timestamp())
    assert not is_signed(key, {**headers, "webhook-id": "msg_8"}, body, at.timestamp())
    assert not is_signed(key, headers, body, late)
    assert not is_signed(key, {**headers, "webhook-timestamp": "²"}, body, at.timestamp())


def test_a_dkim_signature_is_believed_only_over_the_same_words() -> None:
    key = SigningKey("shop.example", "s", private_key(ed25519_pem()))
    other = SigningKey("shop.example", "s", private_key(ed25519_pem.__wrapped__()))
    settings = DkimSettings(domain="shop.example", selector="s", private_key=Secret(ed25519_pem()))
    mail = b"From: a@shop.example\r\nTo: b@shop.example\r\nSubject: Tea\r\n\r\nThere is tea.\r\n"
    signed = Signer([settings], Secrets((), {})).signed(mail, "shop.example", datetime.now(UTC))
    assert is_signed_by(key, signed)
    assert is_signed_by(key, b"Received: by elsewhere\r\n" + signed)
    assert not is_signed_by(key, mail)
    assert not is_signed_by(other, signed)
    for was, becomes in ((b"is tea", b"is no tea"), (b"Subject: Tea", b"Subject: No"), (b"To:", b"Subject: No\r\nTo:")):
        assert not is_signed_by(key, signed.replace(was, becomes))


def test_the_first_time_fails_and_the_second_works() -> None:
    is_first = FirstTime()
    assert [is_first("a"), is_first("b"), is_first("a"), is_first("a")] == [True, True, False, True]
