"""The folder a demo lives in: whose it is, its settings, its secret, and the file that points a shell at it."""

from __future__ import annotations

import base64
import fcntl
import os
import secrets
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from string import Template

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from daemon.config_values import quoted
from daemon.demo_dns import RESOLVERS, ROOT
from daemon.demo_sinks import HOST, Ports
from daemon.demo_upkeep import sections
from daemon.exits import CONFIG, UNAVAILABLE, Exit
from daemon.pginstall import server_account
from jobs.email.dkim_keys import SigningKey, private_key

DEFAULT = Path("var/demo")
ELSEWHERE = Path("/var/lib/jobsd-demo")
"""For root whose working folder is closed to the account that PostgreSQL then runs as."""

SECRET, DKIM = "demo", "dkim"
"""Names of secrets."""

MAIL_DOMAIN, SELECTOR = "shop.example", "demo"

SETTINGS = Template("""\
# Settings of `jobsd demo`, written anew at each start.  A change counts at once after: kill -HUP $$(cat $pid_file)

[database]
dsn = "embedded"

[daemon]
name = "demo"
state_dir = $state_dir
secrets_dir = $secrets_dir
drain_timeout = "5s"

[admin]
listen = "$host:$admin"

[log]
format = "json"

[webhook]
allow_http = true
allow_addresses = ["127.0.0.0/8"]      # only these; everything else that is private stays forbidden
allow_ports = [80, 443, $webhook]
timeout = "5s"

[email]
from = "Demo Shop <orders@$mail_domain>"

[email.relays.main]
host = "$host"
port = $mail
tls = "none"

[email.dkim.demo]
domain = "$mail_domain"
selector = "$selector"
private_key = "secret://$dkim"

[email.forward]
domain = "fwd.$mail_domain"              # ours: senders of what is forwarded become addresses of it
srs_secrets = ["secret://$secret"]

[dns]
resolvers = [$resolvers]
roots = ["$root"]                      # a little Internet of its own, at loopback addresses and one port
authority_port = $dns
allow_addresses = ["127.0.0.0/8"]

[dns.domains]
check_gap = "0s"                       # by default a second check within ten seconds is answered by the first

[lanes."127.0.0.1"]                    # all sinks are this one destination, and some fail on purpose
enabled = false

[lanes."endpoint:*"]                   # hasty too: by default one that fails is left alone for half a minute at first
start = 3
open = "1500ms"

[kinds.webhook]                        # short ladders, so that a retry is seen; by default the first waits a minute
retry = ["2s", "4s", "8s"]

[kinds.email]
retry = ["2s", "4s", "8s"]

[kinds.dns_check]
retry = ["2s", "4s", "8s"]

[limits.partner]
lane = "partner"
rate = "1/s"
burst = 1

[schedules.heartbeat]
kind = "heartbeat"
cron = "* * * * *"

[retention]
history = "2d"
attempts = "2d"
webhook_deliveries = "2d"
webhook_events = "2d"
email_deliveries = "2d"
notification_deliveries = "2d"
monitor_checks = "2d"
domain_checks = "2d"
""")


class Home:
    """`folder`, made when missing and held by this process until `release`.

    Exit when another demo holds it, it cannot be written, or the account that PostgreSQL runs as cannot enter it.
    """

    def __init__(self, state_dir: Path | None) -> None:
        self.folder = _made(state_dir or DEFAULT)
        if os.geteuid() == 0:  # PostgreSQL refuses to be root
            self.folder = _enterable(self.folder, may_move=state_dir is None)
        self.database = self.folder / "postgres"
        self.settings = self.folder / "demo.toml"
        self.env = self.folder / "env"
        self.log = self.folder / "daemon.log"
        self.rows = self.folder / "rows.sql"
        self.mail = self.folder / "mail"
        self.pid = self.folder / "pid"
        self._lock = _locked(self.folder)
        self.pid.write_text(f"{os.getpid()}\n")

    def release(self) -> None:
        """Let the next demo have the folder."""
        self.pid.unlink(missing_ok=True)
        os.close(self._lock)

    def secret(self) -> str:
        """The key that webhooks are signed with."""
        return self._kept(SECRET, lambda: f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}\n")

    def dkim(self) -> SigningKey:
        """The key that mail is signed with."""
        return SigningKey(MAIL_DOMAIN, SELECTOR, private_key(self._kept(DKIM, _new_key)))

    def _kept(self, name: str, new: Callable[[], str]) -> str:
        """The secret of that name, made at the first start: rows that wait may refer to it."""
        folder = self.folder / "secrets"
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / name
        if not path.exists():
            path.touch(0o600)
            path.write_text(new())
        return path.read_text().strip()

    def write_settings(self, ports: Ports) -> None:
        text = SETTINGS.substitute(
            asdict(ports),
            host=HOST,
            resolvers=", ".join(quoted(f"{address}:{ports.dns}") for address in RESOLVERS),
            root=ROOT,
            mail_domain=MAIL_DOMAIN,
            selector=SELECTOR,
            dkim=DKIM,
            secret=SECRET,
            pid_file=shlex.quote(str(self.pid)),
            state_dir=quoted(str(self.folder)),
            secrets_dir=quoted(str(self.folder / "secrets")),
        )
        self.settings.write_text(f"{text}\n{sections()}")

    def write_env(self, socket_folder: Path, port: int, user: str, database: str, first: Path, last: Path) -> None:
        """What `. env` does to a shell: `jobsd` and `psql` mean this demo, whatever they meant before.  Programs are
        looked for in `first` before, in `last` after all else."""
        lines = [f"# Points a shell at the demo under {self.folder}:  . {shlex.quote(str(self.env))}"]
        named = sorted(name for name in os.environ if name.startswith("JOBSD_") and name.isidentifier())
        lines += [f"unset {name}" for name in ("DATABASE_URL", "PGSERVICE", "PGOPTIONS", "PGPASSWORD", *named)]
        for name, value in (
            ("JOBSD_CONFIG", str(self.settings)),
            ("PGHOST", str(socket_folder)),
            ("PGPORT", str(port)),
            ("PGUSER", user),
            ("PGDATABASE", database),
            ("PGSSLMODE", "disable"),
        ):
            lines.append(f"export {name}={shlex.quote(value)}")
        lines.append(f'export PATH={shlex.quote(str(first))}:"$PATH":{shlex.quote(str(last))}')
        self.env.write_text("\n".join(lines) + "\n")


def program_folder() -> Path:
    """Where the `jobsd` of this very environment is."""
    return Path(sys.executable).parent


def _new_key() -> str:
    """Ed25519, which takes no time to make; RSA takes a second."""
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _made(folder: Path) -> Path:
    folder = folder.absolute()
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True)
            folder.chmod(0o755)  # the account that PostgreSQL runs as must pass; what is secret is closed by itself
        if not os.access(folder, os.W_OK):
            raise PermissionError(0, "it cannot be written")
    except OSError as error:
        raise Exit(CONFIG, f"the demo cannot live in {folder}: {error.strerror}; choose another --state-dir") from error
    return folder.resolve()


def _enterable(folder: Path, *, may_move: bool) -> Path:
    account = server_account(folder / "postgres")
    closed = account.closed_parent(folder / "postgres")
    if closed is None:
        return folder
    if may_move and account.closed_parent(ELSEWHERE) is None:
        return _made(ELSEWHERE)
    raise Exit(
        CONFIG,
        f"PostgreSQL does not run as root, and uid {account.uid}, which it runs as here, may not enter {closed}: "
        f"choose another --state-dir, or allow it: chmod o+x {closed}",
    )


def _locked(folder: Path) -> int:
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise Exit(
            UNAVAILABLE, f"another demo runs in {folder}: stop that one, or give this one its own --state-dir"
        ) from None
    return lock
