"""`jobsd email dkim`: keys that sign mail, and their records in DNS."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from daemon.cli_options import config_option, json_option
from daemon.cli_output import cell, print_json
from daemon.config import Config, load
from daemon.exits import CONFIG, FAILED, OK, Exit
from daemon.outfit import secret_folders
from jobs.dns.answer import Answer
from jobs.dns.resolver import Resolver
from jobs.email.dkim import NoKey, Signer
from jobs.email.dkim_keys import SigningKey
from jobs.secrets import Secrets

PUBLISHED = "published"


@dataclass(frozen=True, slots=True)
class Shown:
    """A key, its record, and whether DNS has it (None: nobody asked)."""

    name: str
    domain: str
    selector: str
    algorithm: str
    signs: bool
    host: str
    record: str
    published: str | None = None


@click.command(short_help="The DNS records of the keys that sign mail.")
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--check", is_flag=True, help="Ask DNS whether it has them; exit code 1 if one is missing or another.")
@config_option
@json_option
def dkim(name: str | None, check: bool, config_file: Path | None, as_json: bool) -> int:
    """Prints the TXT record of [email.dkim.NAME], or of all keys, as a zone file has it."""
    config = load(config_file)
    keys = _keys(config, name)
    found = asyncio.run(_published(config, keys)) if check else {}
    if as_json:
        print_json([asdict(_shown(title, key, config, found.get(title))) for title, key in keys.items()])
    else:
        for title, key in keys.items():
            click.echo(key.zone_line)
            if check:
                click.echo(f"; {title}: {cell(found[title])}")
    return FAILED if any(said != PUBLISHED for said in found.values()) else OK


def _shown(title: str, key: SigningKey, config: Config, published: str | None) -> Shown:
    signs = config.email.dkim[title].signs
    return Shown(title, key.domain, key.selector, key.algorithm, signs, key.host, key.record, published)


def _keys(config: Config, name: str | None) -> dict[str, SigningKey]:
    sections = config.email.dkim
    if name is not None and name not in sections:
        known = ", ".join(sections) or "no key at all"
        raise Exit(CONFIG, f"there is no [email.dkim.{name}]; the config has {known}")
    signer = Signer([], Secrets(secret_folders(config)))
    try:
        return {title: signer.key(one) for title, one in sections.items() if name in (None, title)}
    except NoKey as error:
        raise Exit(CONFIG, str(error.args[0])) from error


async def _published(config: Config, keys: dict[str, SigningKey]) -> dict[str, str]:
    resolver = Resolver(config.dns)
    answers = await asyncio.gather(*(resolver.query(key.host, "TXT") for key in keys.values()))
    await resolver.close()
    return {title: _judged(key, answer) for (title, key), answer in zip(keys.items(), answers, strict=True)}


def _judged(key: SigningKey, answer: Answer) -> str:
    if key.public in {_tag(text, "p") for text in answer.values}:
        return PUBLISHED
    if answer.values:
        return "DNS has another key under this selector"
    return f"not in DNS: {answer.reason or answer.outcome}"


def _tag(record: str, name: str) -> str:
    tags = dict(part.partition("=")[::2] for part in "".join(record.split()).split(";"))
    return tags.get(name, "")
