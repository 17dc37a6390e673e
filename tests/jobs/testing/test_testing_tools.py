"""What handlers talk to in a test: fakes that keep what they are told, or the test's own."""

from __future__ import annotations

import httpx2
import pytest

from jobs import testing
from jobs.testing import FakeHttp, Queue
from jobs.testing.dns import FakeDns
from jobs.webhook.settings import WebhookSettings
from jobs.webhook.transport import open_http
from tests.jobs.testing.shop import handlers


async def test_requests_are_kept_and_go_nowhere(jobs_queue: Queue) -> None:
    await jobs_queue.enqueue("shop.receipt", {"order": 7})
    await jobs_queue.drain(raise_errors=True)
    (sent,) = jobs_queue.http.requests
    assert (sent.method, sent.url, sent.json) == ("POST", "https://mail.example/receipts", {"order": 7})
    assert sent.headers["content-type"] == "application/json"


async def test_replies_come_in_turn_and_the_last_again() -> None:
    http = FakeHttp()
    http.reply("https://*", 404, text="gone")
    http.reply("https://pay.example/*", 503, 200, json={"id": 5})
    http.reply("https://pay.example/*", httpx2.ConnectTimeout("slow"), method="put")
    replies = [await http.client.get("https://pay.example/1") for _ in range(3)]
    assert [reply.status_code for reply in replies] == [503, 200, 200]
    assert replies[2].json() == {"id": 5}
    assert (await http.client.get("https://other.example/")).text == "gone"
    with pytest.raises(httpx2.ConnectTimeout):
        await http.client.put("https://pay.example/1")
    http.reply("*", lambda request: httpx2.Response(201, text=request.method))
    assert (await http.client.delete("https://pay.example/1")).text == "DELETE"
    assert len(http.requests) == 6
    http.clear()
    assert http.requests == []
    await http.aclose()


async def test_a_request_nobody_thought_of_fails_where_a_test_is_strict(jobs_queue: Queue) -> None:
    jobs_queue.http.strict = True
    await jobs_queue.enqueue("shop.receipt", {"order": 7})
    with pytest.raises(AssertionError, match=r"no reply was given for POST https://mail\.example/receipts"):
        await jobs_queue.drain(raise_errors=True)


async def test_the_built_in_email_kind_hands_its_messages_to_an_outbox() -> None:
    async with testing.queue(handlers=["jobs.email.handler"], config="[email]\nfrom = 'shop@x.example'") as queue:
        queue.mail.reply((451, "4.7.1 later"), (250, "2.0.0 ok"))
        await queue.enqueue("email", {"to": "jo@x.example", "subject": "Hello", "text": "You"})
        ran = await queue.drain_all()
        assert ran.outcomes == [("email", "retry"), ("email", "done")]
        refused, taken = queue.mail.outbox
        assert (refused.reply.code, taken.reply.code) == (451, 250)
        assert (taken.sender, taken.recipients, taken.relay) == ("shop@x.example", ("jo@x.example",), "main")
        assert taken.message["Subject"] == "Hello"
        assert taken.message.get_content().strip() == "You"


async def test_name_servers_and_resolvers_of_the_fake_say_the_same() -> None:
    dns = FakeDns()
    dns.answer("x.example", "TXT", "token=1")
    dns.fail("y.example", "TXT")
    async with dns.check("x.example") as check:
        sighting = await check.sight("x.example", "TXT", visible=True)
        assert await check.query("x.example", "TXT") == await check.published("x.example", "TXT")
        assert check.questions == 1
    assert (sighting.zone, sighting.quorum) == ("x.example", 1)
    assert [a.values for a in (*sighting.authorities.values(), *sighting.resolvers.values())] == [("token=1",)] * 2
    unseen = await dns.sight("y.example", "TXT", visible=False)
    assert [a.reason for a in unseen.authorities.values()] == ["servfail"]
    assert not unseen.resolvers
    assert dns.questions == [("x.example", "TXT"), ("y.example", "TXT")]


async def test_the_built_in_dns_kind_asks_nobody() -> None:
    async with testing.queue(handlers=["jobs.dns.handler"]) as queue:
        queue.dns.answer("x.example", "TXT", "token=1")
        queue.dns.fail("y.example", "TXT")
        for domain in ("x.example", "y.example", "z.example"):
            await queue.enqueue("dns_check", {"domain": domain, "expect": [{"type": "TXT", "value": "token=1"}]})
        await queue.drain()
        await queue.assert_done("dns_check", {"domain": "x.example"}, result={"verdict": "match"})
        await queue.assert_retrying("dns_check", {"domain": "y.example"}, code="indeterminate")
        await queue.assert_done("dns_check", {"domain": "z.example"}, result={"verdict": "absent"})
        assert ("x.example", "TXT") in queue.dns.questions


async def test_a_test_may_bring_its_own() -> None:
    http = open_http(WebhookSettings())
    async with testing.queue(handlers=[handlers], tools={"http": http, "secrets": {"pay": "s3"}}) as queue:
        await queue.enqueue("shop.secret")
        ran = (await queue.drain()).one()
        assert ran.result == {"secret": "s3", "client": "HttpClient"}
    await http.aclose()
    with pytest.raises(TypeError, match="htpp is none of http, mail, dns, secrets"):
        async with testing.queue(tools={"htpp": http}):
            pass


async def test_the_fake_resolver_knows_no_server_of_the_system(jobs_queue: Queue) -> None:
    assert [str(place) for place in jobs_queue.dns.servers] == ["192.0.2.53"]
