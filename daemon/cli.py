"""The command `jobsd`: its commands by name, each imported only when it is called."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import click

from daemon.exits import FAILED, INTERNAL, OK, Exit

COMMANDS = {
    "serve": ("daemon.cli_serve:serve", "The daemon: claim due rows and run them."),
    "demo": ("daemon.cli_serve:demo", "The daemon with a database, sinks and sample rows of its own."),
    "migrate": ("daemon.cli_migrate:migrate", "Bring the database's schema forward."),
    "roles": ("daemon.cli_roles:roles", "Roles and rights: as SQL, or put into effect."),
    "run": ("daemon.cli_run:run", "One job now, in this process."),
    "test": ("daemon.cli_run:test", "What a job would do, without doing it."),
    "enqueue": ("daemon.cli_enqueue:enqueue", "Insert a row; print its id."),
    "jobs": ("daemon.cli_jobs:jobs", "Look at jobs, and say why one waits; retry, cancel and postpone them."),
    "dead": ("daemon.cli_dead:dead", "Dead letters: list, retry and purge them."),
    "queues": ("daemon.cli_queues:queues", "Queues: list, pause, resume and drain them."),
    "lanes": ("daemon.cli_lanes:lanes", "Destinations: list, pause, resume and reset them."),
    "endpoints": (
        "daemon.cli_endpoints:endpoints",
        "Webhook endpoints: list, add, edit, enable, disable and test them.",
    ),
    "email": ("daemon.cli_email:email", "E-mail: templates, who is not written to, and keys that sign."),
    "domains": ("daemon.cli_domains:domains", "Registered domains: list, show, add, check and remove them."),
    "archive": ("daemon.cli_archive:archive", "Archives: list them, verify them, put their rows back."),
    "kinds": ("daemon.cli_holds:kinds", "Kinds: pause and resume them."),
    "monitors": ("daemon.cli_monitors:monitors", "Monitors: what is watched, how it is, and what was found."),
    "orgs": ("daemon.cli_orgs:orgs", "Organisations: pause and resume them, and give them weights."),
    "schedules": ("daemon.cli_schedules:schedules", "Schedules: list, pause, resume and run them."),
    "undo": ("daemon.cli_undo:undo", "Take an operation back where nothing has run since."),
    "stats": ("daemon.cli_queues:stats", "Rows of each queue in numbers."),
    "config": ("daemon.cli_config:config", "Settings: check, show and compare them."),
    "sample": ("daemon.cli_sample:sample", "A sample application to try the catalogue's jobs on."),
    "doctor": ("daemon.cli_doctor:doctor", "Check everything the daemon rests on, with a remedy for each fault."),
}
"""name: (module:attribute, what it does).  The second is said again here so that `--help` imports none of them."""


class Commands(click.Group):
    """Loads a command when it is asked for by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(_imported(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, doc) for name, (_where, doc) in COMMANDS.items()])


def _imported(module: str) -> ModuleType:
    """Nothing that an import leaves is garbage, then or later: looking for it is a tenth of the time it takes."""
    if module in sys.modules or not gc.isenabled():
        return importlib.import_module(module)
    gc.disable()
    try:
        return importlib.import_module(module)
    finally:
        gc.freeze()
        gc.enable()


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version  # noqa: PLC0415  10 ms that only --version needs

        click.echo(f"jobsd {version('jobsd')}")
        ctx.exit()


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 the job failed, 2 usage, 69 database unavailable, 70 internal, "
    "75 skipped (another run holds the lock), 78 bad config.",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Say which.")
def cli() -> None:
    """Takes due rows out of a Postgres table and does the work."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.  Whatever goes wrong is one message on standard error."""
    try:
        answer: Any = cli.main(arguments, prog_name="jobsd", standalone_mode=False)
    except Exit as ended:
        return _say(ended.code, ended.message)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:  # Ctrl-C, or no answer to a question
        return _say(FAILED, "aborted")
    except BrokenPipeError:  # whoever read our output has seen enough; keep Python from saying so at its own end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except Exception as error:  # the last line of defence, for what is nobody's mistake but ours
        return _unforeseen(error)
    return answer if isinstance(answer, int) else OK


def _unforeseen(error: Exception) -> int:
    """The database's own refusals by what they mean; anything else is a bug, and shown as one."""
    from daemon.cli_faults import meaning  # noqa: PLC0415  needs the database driver, which --help does not

    found = meaning(error)
    if found is None:
        sys.excepthook(type(error), error, error.__traceback__)
        return _say(INTERNAL, "this is a bug in jobsd; please report it with the lines above")
    return _say(*found)


def _say(code: int, message: str) -> int:
    if message:
        click.echo("\n".join(f"jobsd: {line}" for line in message.splitlines()), err=True)
    return code
