"""What to try beside a running demo: commands and SQL that work as they stand.  Pure."""

from __future__ import annotations

import shlex
from pathlib import Path

from daemon.demo_sinks import HOST, Ports


def hints(env: Path, ports: Ports, waiting_id: int, *, has_curl: bool) -> tuple[str, ...]:
    """Lines for a terminal of 80 columns; those that begin with two spaces are to be typed.  No comments in them:
    zsh takes none at its prompt.

    `waiting_id` is a row that waits for ever, to be explained.
    """
    receiver = f"http://{HOST}:{ports.webhook}"
    metrics = f"http://{HOST}:{ports.admin}/metrics"
    return (
        "Try next in another terminal (the first line makes jobsd and psql mean this):",
        f"  . {shlex.quote(str(env))}",
        "  jobsd jobs list --limit 10",
        f"  jobsd jobs explain {waiting_id}",
        "  jobsd dead list --limit 10",
        "  jobsd endpoints list",
        "  jobsd email dkim --check",
        "  jobsd stats",
        "  jobsd enqueue heartbeat --run-at +3s",
        "  psql -c 'select kind, state, count(*) from job_status group by 1, 2'",
        f"  curl -s {metrics} | grep ^jobsd_attempts_total" if has_curl else f"and look at {metrics}",
        "Enqueue as your own program would: start psql and say",
        "  insert into jobs (kind, args)",
        f"""  values ('webhook', '{{"url": "{receiver}/orders", "payload": 7}}');""",
    )
