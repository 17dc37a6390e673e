"""The page docs/cli.md, written from the commands themselves: `python -m daemon.cli_docs`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from daemon.cli import cli

PAGE = Path(__file__).parent.parent / "docs" / "cli.md"

_HEAD = """# Command line

`jobsd` and `python -m daemon` are the same; `python -m jobs KIND` is `jobsd run KIND`.

Standard output carries data only; everything else goes to standard error. On a terminal tables are drawn, elsewhere
columns are aligned by spaces, with `-` for an empty cell; `NO_COLOR` is respected. Whatever deletes or cancels asks
first, and where nobody can answer it wants `--yes`; `--dry-run` says what would be done. Whoever pauses, retries,
cancels or purges is written to `job_audit`, with `--reason`.

A command finds its settings as the daemon does: the file given with `-c`, else `$JOBSD_CONFIG`, `./config.toml`,
`/etc/jobsd/config.toml`; over it the environment (`DATABASE_URL`, `JOBSD_…`). With `database.dsn = "embedded"` it
shares the server of the daemon that runs, or starts one for as long as it takes.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | the job failed; or what was asked for is not so: no such job, a check that fails |
| 2 | usage: a wrong option, a value the database refuses |
| 69 | the database is unavailable |
| 70 | an error of jobsd's own |
| 75 | skipped: another run holds the lock |
| 78 | bad config, or a schema that does not fit |

"""


def page() -> str:
    """The whole page."""
    root = click.Context(cli, info_name="jobsd")
    return _HEAD + "\n".join(_sections(cli, root, 2)).rstrip("\n") + "\n"


def _sections(group: click.Group, ctx: click.Context, level: int) -> Iterator[str]:
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if command is None:
            continue
        inner = click.Context(command, info_name=name, parent=ctx)
        yield from _section(command, inner, level)
        if isinstance(command, click.Group):
            yield from _sections(command, inner, level + 1)


def _section(command: click.Command, ctx: click.Context, level: int) -> Iterator[str]:
    usage = " ".join([ctx.command_path, *command.collect_usage_pieces(ctx)])
    yield f"{'#' * level} `{usage}`\n"
    yield from (" ".join(text.split()) + "\n" for text in (command.help or "").split("\n\n"))
    rows = [found for param in command.get_params(ctx) if (found := param.get_help_record(ctx)) is not None]
    rows = [row for row in rows if "--help" not in row[0]]
    if rows:
        yield "| option | |\n| --- | --- |"
        yield from (f"| `{_cell(option)}` | {_cell(text)} |" for option, text in rows)
        yield ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page())
