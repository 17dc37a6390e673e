"""The demo's third part: mail to who greylists, to nobody, of many things at once, and on to another place."""

from __future__ import annotations

import asyncpg

import sql
from daemon.demo_dkim import is_signed_by
from daemon.demo_mail import Letter, MailSink
from daemon.demo_teller import Amiss, Teller
from jobs.email.dkim_keys import SigningKey

ADA, GREY_BOX, GONE_BOX = "ada@shop.example", "grey@shop.example", "gone@shop.example"

GREY = """insert into jobs (kind, org_id, args) values ('email', 'acme',
  '{"to": "grey@shop.example", "subject": "Your order 4001", "text": "Thank you."}');"""

GONE = """insert into jobs (kind, org_id, args) values ('email', 'acme',
  '{"to": "gone@shop.example", "subject": "Your order 4002", "text": "Thank you."}');"""

BOTH = """insert into jobs (kind, org_id, args) values ('email', 'acme',
  '{"to": ["ada@shop.example", "gone@shop.example"], "subject": "New tea",
    "text": "There is a new tea."}');"""

LIFT = "jobsd email suppressions lift gone@shop.example --org acme"

_SQL = sql.load("demo.sql")


class Letters:
    """`sink` is the mail server that all of it goes to, `dkim` the key that signs it."""

    def __init__(self, teller: Teller, pool: asyncpg.Pool, sink: MailSink, dkim: SigningKey) -> None:
        self._teller = teller
        self._pool = pool
        self._sink = sink
        self._dkim = dkim

    async def run(self) -> None:
        self._teller.say("\nNow mail. Some servers turn strangers away, and let in those who come back:", GREY)
        grey = await self._insert(GREY)
        await self._bounce()
        await self._greylisted(grey)

    async def _bounce(self) -> None:
        self._teller.say("\nMeanwhile another. Relays think ill of senders who go on writing to nobody:", GONE)
        await self._ended(await self._insert(GONE), "dead")
        asked = self._sink.asked[GONE_BOX]
        self._teller.say("It is tried once. Then acme's mails leave him out for a day, and reach the others:", BOTH)
        await self._ended(await self._insert(BOTH), "done")
        if self._sink.asked[GONE_BOX] > asked:
            raise Amiss(f"the relay was asked for {GONE_BOX} again")
        self._teller.say("ada has it; of gone the relay heard nothing. Who knows that he is back says:", LIFT)
        await self._teller.jobsd(LIFT)

    async def _greylisted(self, job_id: int) -> None:
        ended = await self._ended(job_id, "done")
        if not self._is_signed(self._letter(GREY_BOX)):
            raise Amiss(f"what came for {GREY_BOX} is not signed")
        self._teller.say(f"And grey has the first one, at attempt {ended['attempt']}, its DKIM signature as it must be")

    def _letter(self, recipient: str) -> Letter:
        if (letter := self._sink.last.get(recipient)) is None:
            raise Amiss(f"nothing came for {recipient}")
        return letter

    def _is_signed(self, letter: Letter) -> bool:
        return is_signed_by(self._dkim, letter.message)

    async def _insert(self, statement: str) -> int:
        found: int = await self._pool.fetchval(f"{statement.removesuffix(';')} returning id")
        return found

    async def _ended(self, job_id: int, state: str) -> asyncpg.Record:
        """The row, once it has ended; Amiss if it ended otherwise."""

        async def look() -> asyncpg.Record | None:
            return await self._pool.fetchrow(_SQL["ended"], job_id)

        found = await self._teller.seen(f"row {job_id} ends", look, lambda row: row is not None)
        if found is None or found["state"] != state:
            raise Amiss(f"row {job_id} is {found}, not {state}")
        return found
