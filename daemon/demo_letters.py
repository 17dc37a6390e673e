"""The demo's third part: mail to who greylists, to nobody, of many things at once, and on to another place."""

from __future__ import annotations

import shlex
from email import message_from_bytes
from email.policy import default

import asyncpg

import sql
from daemon.demo_dkim import is_signed_by
from daemon.demo_mail import Letter, MailSink
from daemon.demo_teller import Amiss, Teller
from jobs.email.dkim_keys import SigningKey

ADA, GREY_BOX, GONE_BOX, HOME_BOX = "ada@shop.example", "grey@shop.example", "gone@shop.example", "ada@home.example"

GREY = """insert into jobs (kind, org_id, args) values ('email', 'acme',
  '{"to": "grey@shop.example", "subject": "Your order 4001", "text": "Thank you."}');"""

GONE = """insert into jobs (kind, org_id, args) values ('email', 'acme',
  '{"to": "gone@shop.example", "subject": "Your order 4002", "text": "Thank you."}');"""

BOTH = """insert into jobs (kind, org_id, args) values ('email', 'acme',
  '{"to": ["ada@shop.example", "gone@shop.example"], "subject": "New tea",
    "text": "There is a new tea."}');"""

LIFT = "jobsd email suppressions lift gone@shop.example --org acme"

TEMPLATE = """insert into email_templates (org_id, name, subject, text) values ('acme', 'paid',
  '{{ items | length }} orders were paid',
  E'{% for one in items %}- order {{ one.order }}\\n{% endfor %}')
on conflict (coalesce(org_id, ''), name) do update set text = excluded.text;"""

ITEMS = """insert into email_digest_items (org_id, gather, email, item)
  select 'acme', '1 s', '{"to": "ada@shop.example", "template": "paid"}',
    jsonb_build_object('order', n) from generate_series(5001, 5003) as n;"""

FORWARD = """insert into email_forwards (org_id, sender, recipients, raw) values
  ('acme', 'orders@shop.example', '{ada@home.example}',
   pg_read_binary_file('PATH'));"""

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
        await self._teller.seen("grey is put off", lambda: self._pool.fetchval(_SQL["put_off"], grey), bool)
        await self._bounce()
        await self._greylisted(grey)
        await self._digest()
        await self._forward()

    async def _bounce(self) -> None:
        self._teller.say("\nMeanwhile another. Relays think ill of senders who go on writing to nobody:", GONE)
        await self._ended(await self._insert(GONE), "dead")
        asked = self._sink.asked[GONE_BOX]
        self._teller.say("It is tried once. For a day acme's mails leave him out, and reach all others:", BOTH)
        await self._ended(await self._insert(BOTH), "done")
        if self._sink.asked[GONE_BOX] > asked:
            raise Amiss(f"the relay was asked for {GONE_BOX} again")
        self._teller.say("ada has it; of gone the relay heard nothing. Who knows that he is back says:", LIFT)
        await self._teller.jobsd(LIFT)

    async def _greylisted(self, job_id: int) -> None:
        ended = await self._ended(job_id, "done")
        if not self._is_signed(self._letter(GREY_BOX)):
            raise Amiss(f"what came for {GREY_BOX} is not signed")
        self._teller.say(
            f"And grey has the first one, at attempt {ended['attempt']}, its DKIM signature as it must be. By default "
            "that takes a minute, or five where a server says that it greylists"
        )

    async def _digest(self) -> None:
        self._teller.say("\nOrders are paid all day long; ada does not want a mail for each. A template:", TEMPLATE)
        await self._pool.execute(TEMPLATE)
        self._teller.say("What happens within a second, or whatever time you say, is told in one mail:", ITEMS)
        newest = await self._pool.fetchval(_SQL["newest"])
        await self._pool.execute(ITEMS)
        made = await self._pool.fetch(_SQL["mails_since"], newest)
        if len(made) != 1:
            raise Amiss(f"the items are in {len(made)} mails")
        await self._ended(made[0]["id"], "done")
        mail = message_from_bytes(self._letter(ADA).message, policy=default)
        self._teller.say("This came:", f"Subject: {mail['subject']}\n{mail.get_content().strip()}")

    async def _forward(self) -> None:
        came = self._letter(ADA)
        statement = FORWARD.replace("PATH", str(came.path))
        self._teller.say("\nada has moved. Her server sends on what came for her, byte for byte:", statement)
        forward = await self._insert(statement)
        await self._teller.seen(
            f"{HOME_BOX} has it", lambda: self._pool.fetchval(_SQL["forwarded"], forward), lambda found: found
        )
        sent = self._letter(HOME_BOX)
        if not (sent.message.endswith(came.message) and self._is_signed(sent)):
            raise Amiss(f"what came for {HOME_BOX} is not what was sent on")
        command = f"jobsd email srs {shlex.quote(sent.sender)}"
        self._teller.say(
            f"home.example has the same {len(came.message)} bytes behind two headers of ours, and the shop's signature "
            "holds. Bounces would come to us, since we send it; whom they are for is in the address:",
            command,
        )
        self._teller.say(f"That is {(await self._teller.jobsd(command)).strip()}")

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
