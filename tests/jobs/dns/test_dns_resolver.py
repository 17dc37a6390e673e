"""The resolver against a server that can lie: what it says is told apart, and never raised."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter

import dns.flags
import pytest

from jobs.dns.answer import Answer
from jobs.dns.recursive import MAX_CHAIN
from jobs.dns.resolver import Resolver
from jobs.dns.settings import DnsSettings
from jobs.values import duration
from tests.jobs.dns.server import DnsServer, Fault

NAME = "_token.example.test"


async def ask(resolver: Resolver, name: str = NAME, rdtype: str = "TXT") -> Answer:
    return await resolver.query(name, rdtype)


async def test_an_answer_has_its_values_its_ttl_and_its_server(server: DnsServer, resolver: Resolver) -> None:
    server.add(f'{NAME}. 120 IN TXT "one" "two"', f'{NAME}. 120 IN TXT "three"')
    answer = await ask(resolver)
    assert answer.outcome == "answer"
    assert sorted(answer.values) == ["onetwo", "three"]
    assert (answer.ttl_s, answer.authentic, answer.reason) == (120, False, "")
    assert answer.servers == {server.place: "answer"}


@pytest.mark.parametrize(
    ("rdtype", "record", "value"),
    [
        ("A", "192.0.2.7", "192.0.2.7"),
        ("AAAA", "2001:DB8:0:0::7", "2001:db8::7"),
        ("CNAME", "Target.Example.NET.", "target.example.net"),
        ("MX", "10 MX.Example.NET.", "10 mx.example.net"),
        ("MX", "0 .", "0 ."),
        ("TXT", '"a\\000b\\255"', "a\\x00b\\xff"),
        ("NS", "ns.example.net.", "ns.example.net."),
    ],
)
async def test_records_become_text_in_one_form(
    server: DnsServer, resolver: Resolver, rdtype: str, record: str, value: str
) -> None:
    server.add(f"{NAME}. 60 IN {rdtype} {record}")
    assert (await ask(resolver, rdtype=rdtype)).values == (value,)


async def test_the_ad_flag_is_asked_for_and_told(server: DnsServer, resolver: Resolver) -> None:
    server.add(f'{NAME}. 60 IN TXT "x"')
    server.authentic = True
    assert (await ask(resolver)).authentic


async def test_no_such_name_holds_for_the_lesser_of_the_two_soa_times(server: DnsServer, resolver: Resolver) -> None:
    answer = await ask(resolver)
    assert (answer.outcome, answer.ttl_s, answer.values) == ("nxdomain", 60, ())


async def test_no_such_record_is_not_no_such_name(server: DnsServer, resolver: Resolver) -> None:
    server.add(f"{NAME}. 60 IN A 192.0.2.1")
    assert (await ask(resolver)).outcome == "nodata"


@pytest.mark.parametrize("exists", [True, False])
async def test_a_negative_answer_without_a_soa_is_still_one(
    server: DnsServer, resolver: Resolver, exists: bool
) -> None:
    server.soa = False
    if exists:
        server.add(f"{NAME}. 60 IN A 192.0.2.1")
    answer = await ask(resolver)
    assert (answer.outcome, answer.ttl_s) == ("nodata" if exists else "nxdomain", None)


@pytest.mark.parametrize(
    ("fault", "reason", "times"),
    [
        ("servfail", "servfail", 1),
        ("refused", "refused", 1),
        ("notimp", "notimp", 2),  # the second time without EDNS
        ("referral", "lame", 1),
        ("silent", "timeout", 2),
        ("wrong_id", "malformed", 2),
        ("other_question", "malformed", 2),
        ("garbage", "malformed", 2),
        ("answer_and_nxdomain", "malformed", 2),
    ],
)
async def test_a_failure_has_a_reason_and_only_silence_is_asked_again(
    server: DnsServer, resolver: Resolver, hasty: Resolver, fault: Fault, reason: str, times: int
) -> None:
    server.add(f'{NAME}. 60 IN TXT "x"')
    server.fault = fault
    answer = await ask(hasty if times > 1 else resolver)
    assert (answer.outcome, answer.reason, answer.values) == ("error", reason, ())
    assert answer.servers == {server.place: reason}
    assert server.asked == {(NAME + ".", "TXT", "udp"): times}


async def test_a_closed_port_is_noticed_at_once(server: DnsServer) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{free.getsockname()[1]}"
    server.add(f'{NAME}. 60 IN TXT "x"')
    answer = await ask(Resolver(DnsSettings(resolvers=(closed, server.place), timeout=duration(60))))
    assert answer.values == ("x",)
    assert answer.servers == {closed: "unreachable", server.place: "answer"}


async def test_a_forged_reply_is_ignored_and_the_true_one_awaited(server: DnsServer, resolver: Resolver) -> None:
    server.add(f'{NAME}. 60 IN TXT "true"')
    server.fault = "forged_first"
    assert (await ask(resolver)).values == ("true",)


@pytest.mark.parametrize(("count", "transports"), [(5, ["udp"]), (30, ["udp", "tcp"])])
async def test_what_does_not_fit_a_datagram_comes_over_tcp(
    server: DnsServer, resolver: Resolver, count: int, transports: list[str]
) -> None:
    server.add(*(f'{NAME}. 60 IN TXT "{n:0200}"' for n in range(count)))
    assert len((await ask(resolver)).values) == count
    assert [transport for _, _, transport in server.asked] == transports


async def test_without_the_fallback_a_truncated_answer_is_no_answer(server: DnsServer) -> None:
    server.fault = "truncated"
    settings = DnsSettings(resolvers=(server.place,), tcp_fallback=False)
    answer = await ask(Resolver(settings))
    assert (answer.outcome, answer.reason) == ("error", "truncated")


async def test_a_tcp_connection_cut_off_is_no_answer(server: DnsServer, resolver: Resolver) -> None:
    server.fault = "cut_off"
    answer = await ask(resolver)
    assert (answer.outcome, answer.reason) == ("error", "unreachable")


@pytest.mark.parametrize(
    ("fault", "patience"),
    [("servfail", 20), ("refused", 20), ("referral", 20), ("cut_off", 20), ("silent", 1), ("garbage", 1)],
)
async def test_the_next_server_is_asked_when_one_fails(
    server: DnsServer, second: DnsServer, fault: Fault, patience: float
) -> None:
    server.fault = fault
    second.add(f'{NAME}. 60 IN TXT "x"')
    answer = await ask(Resolver(DnsSettings(resolvers=(server.place, second.place), timeout=duration(patience))))
    assert answer.values == ("x",)
    assert list(answer.servers) == [server.place, second.place]


async def test_a_negative_answer_is_an_answer_and_asks_nobody_else(server: DnsServer, second: DnsServer) -> None:
    second.add(f'{NAME}. 60 IN TXT "x"')
    answer = await ask(Resolver(DnsSettings(resolvers=(server.place, second.place))))
    assert answer.outcome == "nxdomain"
    assert not second.asked


async def test_when_all_fail_each_servers_reason_is_kept(server: DnsServer, second: DnsServer) -> None:
    server.fault, second.fault = "silent", "refused"
    answer = await ask(Resolver(DnsSettings(resolvers=(server.place, second.place), timeout=duration(0.5), tries=3)))
    assert (answer.outcome, answer.reason) == ("error", "timeout")
    assert answer.servers == {server.place: "timeout", second.place: "refused"}
    assert (server.asked.total(), second.asked.total()) == (3, 1)


@pytest.mark.parametrize("follow", [True, False], ids=["by the server", "by us"])
async def test_a_cname_chain_is_followed_to_its_end(server: DnsServer, resolver: Resolver, follow: bool) -> None:
    server.follow = follow
    server.add(
        f"{NAME}. 300 IN CNAME b.example.test.",
        "b.example.test. 300 IN CNAME c.example.test.",
        'c.example.test. 30 IN TXT "x"',
    )
    answer = await ask(resolver)
    assert (answer.values, answer.chain) == (("x",), ("b.example.test", "c.example.test"))


async def test_a_chain_that_ends_nowhere_is_no_such_name(server: DnsServer, resolver: Resolver) -> None:
    server.add(f"{NAME}. 300 IN CNAME gone.example.test.")
    answer = await ask(resolver)
    assert (answer.outcome, answer.chain) == ("nxdomain", ("gone.example.test",))


async def test_a_cname_asked_for_is_told_and_not_followed(server: DnsServer, resolver: Resolver) -> None:
    server.add(f"{NAME}. 300 IN CNAME b.example.test.", "b.example.test. 300 IN CNAME c.example.test.")
    answer = await ask(resolver, rdtype="CNAME")
    assert (answer.values, answer.chain) == (("b.example.test",), ())


@pytest.mark.parametrize("follow", [True, False], ids=["by the server", "by us"])
async def test_a_cname_loop_ends(server: DnsServer, resolver: Resolver, follow: bool) -> None:
    server.follow = follow
    server.add(f"{NAME}. 300 IN CNAME b.example.test.", f"b.example.test. 300 IN CNAME {NAME}.")
    answer = await ask(resolver)
    assert (answer.outcome, answer.reason) == ("error", "cname_loop")
    assert server.asked.total() <= 2


async def test_an_endless_chain_ends(server: DnsServer, resolver: Resolver) -> None:
    server.follow = False
    server.add(*(f"n{n}.example.test. 60 IN CNAME n{n + 1}.example.test." for n in range(100)))
    answer = await ask(resolver, "n0.example.test")
    assert (answer.outcome, answer.reason) == ("error", "cname_loop")
    assert server.asked.total() == MAX_CHAIN


async def test_each_question_has_an_id_of_its_own_and_says_what_we_take(server: DnsServer, resolver: Resolver) -> None:
    await asyncio.gather(*(ask(resolver) for _ in range(50)))
    assert len({query.id for query in server.queries}) > 45
    assert {query.payload for query in server.queries} == {1232}
    assert all(query.flags & dns.flags.AD and query.flags & dns.flags.RD for query in server.queries)


async def test_no_more_questions_are_under_way_than_allowed(server: DnsServer) -> None:
    server.fault = "silent"
    resolver = Resolver(DnsSettings(resolvers=(server.place,), timeout=duration(0.5), tries=1, concurrency=3))
    async with asyncio.TaskGroup() as group:
        asks = [group.create_task(ask(resolver, f"n{n}.example.test")) for n in range(9)]
        await asyncio.wait(asks, return_when=asyncio.FIRST_COMPLETED)
        assert server.asked.total() <= 6
    assert server.asked == Counter({(f"n{n}.example.test.", "TXT", "udp"): 1 for n in range(9)})


async def test_close_waits_for_the_questions_under_way(server: DnsServer, hasty: Resolver) -> None:
    server.fault = "silent"
    reasons: list[str] = []

    async def one() -> None:
        reasons.append((await ask(hasty)).reason)

    async with asyncio.TaskGroup() as group:
        group.create_task(one())
        await asyncio.sleep(0)
        await hasty.close()
        assert reasons == ["timeout"]
    await hasty.close()


async def test_a_cancelled_question_leaves_nothing_under_way(server: DnsServer, resolver: Resolver) -> None:
    server.fault = "silent"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await ask(resolver)
    await asyncio.wait_for(resolver.close(), 60)
