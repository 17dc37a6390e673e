"""PIPELINING (RFC 2920): fewer round trips, and still known exactly what became of each message."""

from __future__ import annotations

import asyncio

import pytest

from jobs.email.judge import judge
from jobs.email.relay import Mail
from jobs.email.reply import DeliveryReport
from tests.jobs.email.mail import Clock, mail, only, send, send_large
from tests.jobs.email.peer import DROP, HANG, PIPELINING, RESET, Peer


def codes(*reports: DeliveryReport) -> list[str]:
    return [judge(only(report)).code for report in reports]


async def both(peer: Peer, out: Mail) -> list[DeliveryReport]:
    """Two messages, the second one's commands sent with the first one's dot: on one connection, which has been used."""
    await send(out, "before@x.example")
    first = asyncio.ensure_future(send(out, "first@x.example"))
    second = asyncio.ensure_future(send(out, "second@x.example"))
    return list(await asyncio.gather(first, second))


class Segments:
    """A relay that counts what it reads at once, and answers when it has read it."""

    def __init__(self, *offers: str) -> None:
        self.read: list[bytes] = []
        self._offers = offers

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        in_message = False
        while data := await reader.read(1 << 20):
            self.read.append(data)
            for line in data.split(b"\r\n")[:-1]:
                if in_message:
                    in_message = line != b"."
                    if not in_message:
                        writer.write(b"250 taken\r\n")
                elif line.startswith(b"EHLO"):
                    writer.write(b"250-peer.example\r\n")
                    writer.write(b"".join(b"250-%s\r\n" % o.encode() for o in self._offers) + b"250 HELP\r\n")
                elif line == b"DATA":
                    writer.write(b"354 go\r\n")
                    in_message = True
                else:
                    writer.write(b"250 ok\r\n")
        writer.close()


@pytest.mark.parametrize(("offers", "switched_on", "reads"), [
    (["PIPELINING"], True, ["MAIL RCPT RCPT DATA", "message MAIL RCPT RCPT DATA", "message"]),
    (["PIPELINING"], False, ["MAIL", "RCPT", "RCPT", "DATA", "message"] * 2),
    ([], True, ["MAIL", "RCPT", "RCPT", "DATA", "message"] * 2),
])  # fmt: skip
async def test_a_dot_goes_with_the_commands_of_the_next_message(
    offers: list[str], switched_on: bool, reads: list[str]
) -> None:
    relay = Segments(*offers)
    async with await asyncio.start_server(relay.serve, "127.0.0.1", 0) as server:
        settings = Peer.at(server.sockets[0].getsockname()[1], connections=1, pipelining=switched_on)
        out = mail(settings)
        sent = await asyncio.gather(*(send(out, "a@x.example", "b@x.example") for _ in range(2)))
        assert all(answer.phase == "final" for report in sent for answer in report.answers)
        assert [said(data) for data in relay.read[1:]] == reads
        await out.close()


def said(data: bytes) -> str:
    """The verbs of one read."""
    head, dot, rest = data.partition(b"\r\n.\r\n")
    lines = (rest if dot else head).split(b"\r\n")
    return " ".join((["message"] if dot else []) + [line.split(b" ")[0].decode() for line in lines if line])


async def test_who_is_refused_together_is_told_apart() -> None:
    script = {
        "RCPT TO:<b@x.example>": ["550 5.1.1 no such user"],
        "RCPT TO:<c@x.example>": ["452 4.2.2 mailbox full"],
    }
    async with Peer(script, offers=PIPELINING) as peer:
        out = mail(peer.settings())
        report = await send(out, "a@x.example", "b@x.example", "c@x.example", "d@x.example")
        assert [judge(a).code for a in report.answers] == ["delivered", "bad_recipient", "mailbox_full", "delivered"]
        assert peer.received[0].recipients == ("a@x.example", "d@x.example")
        await out.close()


@pytest.mark.parametrize("data", ["354 go ahead", "554 5.5.1 no valid recipients"])
@pytest.mark.parametrize("script", [
    {"RCPT": ["550 5.1.1 no", "450 4.2.1 later"]},
    {"MAIL": ["451 4.3.0 later"], "RCPT": ["503 MAIL first"] * 2},
])  # fmt: skip
async def test_a_message_for_nobody_is_only_a_dot(data: str, script: dict[str, list[str]]) -> None:
    async with Peer(script | {"DATA": [data]}, offers=PIPELINING) as peer:
        out = mail(peer.settings(connections=1))
        report = await send(out, "a@x.example", "b@x.example")
        expected = ["bad_recipient", "smtp_450"] if "MAIL" not in script else ["smtp_451"] * 2
        assert [judge(a).code for a in report.answers] == expected
        assert [received.wire for received in peer.received] == ([b""] if data.startswith("354") else [])
        assert codes(await send(out)) == ["delivered"]
        assert peer.connections == 1
        await out.close()


@pytest.mark.parametrize("pieces", [1, 3, 7])
async def test_replies_may_come_in_pieces(pieces: int) -> None:
    script = {"RCPT": ["250-2.1.5 one\r\n250-2.1.5 two\r\n250 2.1.5 three"]}
    async with Peer(script, offers=PIPELINING, pieces=pieces) as peer:
        out = mail(peer.settings(connections=1))
        assert codes(*await both(peer, out)) == ["delivered"] * 2
        assert [received.recipients[0][0] for received in peer.received] == ["b", "f", "s"]
        await out.close()


@pytest.mark.parametrize("fault", [DROP, RESET, "gibberish", "421 4.3.2 closing"])
@pytest.mark.parametrize("step", ["MAIL", "RCPT TO:<second@x.example>", "DATA"])
async def test_a_message_that_was_not_asked_for_goes_at_once_through_another_connection(step: str, fault: str) -> None:
    """The third one's, whose commands went with the dot of the one before."""
    ok = {"MAIL": "250 ok", "DATA": "354 go ahead"}
    script = {step: [fault] if step.startswith("RCPT") else [ok[step]] * 2 + [fault]}
    async with Peer(script, offers=PIPELINING) as peer:
        out = mail(peer.settings(connections=1))
        assert codes(*await both(peer, out)) == ["delivered"] * 2
        assert [received.recipients[0] for received in peer.received][1:] == ["first@x.example", "second@x.example"]
        assert peer.connections == 2
        await out.close()


@pytest.mark.parametrize(
    ("fault", "first", "second"),
    [(DROP, "lost_after_dot", "delivered"), (RESET, "lost_after_dot", "delivered"),
     ("gibberish", "garbled_after_dot", "delivered"),
     ("421 4.3.2 closing", "relay_closing", "relay_resting"), ("354 what", "unexpected_reply", "delivered")],
)  # fmt: skip
async def test_only_the_message_whose_dot_was_sent_is_in_doubt(fault: str, first: str, second: str) -> None:
    """Of two on one connection: the other one was not asked for yet, and is sent elsewhere."""
    async with Peer({"DOT": ["250 taken", fault]}, offers=PIPELINING) as peer:
        out = mail(peer.settings(connections=1), clock=Clock())
        assert codes(*await both(peer, out)) == [first, second]
        served = [received.recipients[0] for received in peer.received]
        assert served == ["before@x.example"] + ["second@x.example"] * (second == "delivered")
        await out.close()


@pytest.mark.parametrize("wrong", ["250 2.0.0 once more", "550 5.1.1 no such user", "354 go on", "250-"])
@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DOT"])
async def test_a_relay_that_says_more_than_it_was_asked_is_not_believed(step: str, wrong: str) -> None:
    """Each reply after that would be somebody else's: a message that is well must not be taken for refused."""
    usual = {"MAIL": "250 ok", "RCPT": "250 ok", "DOT": "250 taken"}[step]
    async with Peer({step: [usual, f"{usual}\r\n{wrong}"]}, offers=PIPELINING) as peer:
        out = mail(peer.settings(connections=1))
        found = codes(*await both(peer, out))
        assert found == ["delivered"] * 2
        served = [received.recipients[0] for received in peer.received]
        assert sorted(served) == ["before@x.example", "first@x.example", "second@x.example"]
        await out.close()


async def test_a_relay_that_speaks_before_it_has_the_message_does_not_get_it() -> None:
    async with Peer({"DATA": ["354 go ahead\r\n250 taken", "354 go ahead\r\n250 taken"]}, offers=PIPELINING) as peer:
        out = mail(peer.settings())
        report = await send(out)
        assert (only(report).phase, only(report).fault) == ("data", "garbled")
        assert peer.received == []
        await out.close()


async def test_a_relay_that_stumbles_over_commands_sent_together_gets_them_one_by_one() -> None:
    async with Peer({"MAIL": [DROP]}, offers=PIPELINING) as peer:
        out = mail(peer.settings())
        assert codes(await send(out)) == ["delivered"]
        assert peer.connections == 2
        await out.close()


async def test_a_message_that_ends_each_connection_is_charged() -> None:
    async with Peer({"RCPT": [DROP] * 9}, offers=PIPELINING) as peer:
        out = mail(peer.settings(), clock=Clock())
        report = await send(out)
        assert (only(report).phase, judge(only(report)).result) == ("rcpt", "soft")
        await out.close()


async def test_who_is_cancelled_takes_no_other_message_with_him() -> None:
    """Neither the one before, which waits for the reply to its dot, nor the one that waits for the connection."""
    async with Peer({"DOT": ["250 taken", HANG]}, offers=PIPELINING) as peer:
        out = mail(peer.settings(connections=1))
        await send(out, "before@x.example")
        first = asyncio.ensure_future(send(out, "first@x.example"))
        await peer.until(lambda: peer.count(".") == 2)
        second = asyncio.ensure_future(send(out, "second@x.example"))
        third = asyncio.ensure_future(send(out, "third@x.example"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([second])
        assert not first.done()
        first.cancel()
        assert codes(await first) == ["stopped_after_dot"]
        assert codes(await third) == ["delivered"]
        assert [r.recipients[0] for r in peer.received] == ["before@x.example", "third@x.example"]
        await out.close()


async def test_large_messages_follow_each_other() -> None:
    async with Peer(offers=PIPELINING) as peer:
        out = mail(peer.settings(connections=1))
        reports = await asyncio.gather(*(send_large(out) for _ in range(4)))
        assert codes(*reports) == ["delivered"] * 4
        assert len({received.wire for received in peer.received}) <= 4
        assert peer.connections == 1
        await out.close()


async def test_a_hundred_at_once_are_each_handed_over_once() -> None:
    async with Peer(offers=PIPELINING) as peer:
        out = mail(peer.settings(connections=3, messages_per_connection=7))
        reports = await asyncio.gather(*(send(out, f"u{n}@x.example") for n in range(100)))
        assert codes(*reports) == ["delivered"] * 100
        assert sorted(r.recipients[0] for r in peer.received) == sorted(f"u{n}@x.example" for n in range(100))
        per_connection = [r.connection for r in peer.received]
        assert max(map(per_connection.count, per_connection)) <= 7
        await out.close()
