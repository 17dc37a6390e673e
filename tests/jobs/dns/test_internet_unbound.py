"""A resolver that others have written finds its way through the lab too; only where `unbound` is installed."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest

from tests.jobs.dns.internet import Internet

UNBOUND = os.environ.get("UNBOUND") or shutil.which("unbound", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
ADDRESS = "127.53.255.1"

pytestmark = pytest.mark.skipif(UNBOUND is None, reason="there is no unbound here")

CONFIG = """\
server:
    interface: {address}@{port}
    port: {port}
    do-daemonize: no
    chroot: ""
    username: ""
    directory: "{folder}"
    pidfile: ""
    use-syslog: no
    logfile: "{folder}/log"
    verbosity: 1
    num-threads: 1
    access-control: 127.0.0.0/8 allow
    do-not-query-localhost: no
    do-ip6: no
    root-hints: "{folder}/hints"
    trust-anchor-file: "{folder}/anchor"
    target-fetch-policy: "0 0 0 0 0"
    local-zone: "test." nodefault
    local-zone: "example." nodefault
    cache-max-negative-ttl: 5
remote-control:
    control-enable: no
"""


@asynccontextmanager
async def lab() -> AsyncIterator[Internet]:
    """At port 53: unbound asks name servers nowhere else."""
    internet = Internet(port=53)
    try:
        await internet.__aenter__()
    except OSError as error:
        pytest.skip(f"port 53 is not ours: {error}")
    try:
        yield internet
    finally:
        await internet.__aexit__(None, None, None)


@asynccontextmanager
async def unbound(internet: Internet, folder: Path) -> AsyncIterator[None]:
    assert UNBOUND is not None
    hints = [f". 300 IN NS {server.host}." for server in internet.root.servers]
    hints += [f"{server.host}. 300 IN A {server.address}" for server in internet.root.servers]
    (folder / "hints").write_text("\n".join(hints) + "\n")
    (folder / "anchor").write_text(f"{internet.anchor}\n")
    config = CONFIG.format(address=ADDRESS, port=internet.port, folder=folder)
    (folder / "conf").write_text(config)
    process = await asyncio.create_subprocess_exec(
        UNBOUND, "-d", "-p", "-c", str(folder / "conf"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.kill()
        await process.wait()


async def ask(port: int, name: str, *, flags: int = 0) -> dns.message.Message:
    """Over TCP, again and again until somebody listens."""
    query = dns.message.make_query(name, "TXT", use_edns=0, flags=dns.flags.RD | dns.flags.AD | flags)
    while True:
        try:
            return await dns.asyncquery.tcp(query, ADDRESS, 20, port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.05)


async def test_unbound_validates_what_is_signed_and_refuses_what_is_broken(tmp_path: Path) -> None:
    async with lab() as internet, unbound(internet, tmp_path):
        for origin, broken in (("good.test", None), ("forged.test", "forged"), ("late.test", "expired")):
            zone = await internet.zone(origin, signed=True, broken=broken)  # type: ignore[arg-type] # some of them
            zone.add(f"{origin} TXT hello", f"*.wild.{origin} TXT wild", f"alias.{origin} CNAME {origin}.")
        (await internet.zone("plain.test")).add("plain.test TXT hello")
        (await internet.zone("plain.example")).add("plain.example TXT hello")
        hoster = await internet.zone("hoster.test", signed=True)
        (await internet.zone("guest.test", on=hoster.servers, signed=True)).add("guest.test TXT hello")
        for name in ("good.test", "alias.good.test", "x.wild.good.test", "nothing.good.test", "guest.test"):
            reply = await ask(internet.port, name)
            assert reply.rcode() == (dns.rcode.NXDOMAIN if name.startswith("nothing") else dns.rcode.NOERROR), name
            assert reply.flags & dns.flags.AD, name
        for name in ("plain.test", "plain.example"):
            reply = await ask(internet.port, name)
            assert (reply.rcode(), reply.flags & dns.flags.AD, len(reply.answer)) == (0, 0, 1), name
        for name in ("forged.test", "late.test", "nothing.forged.test"):
            assert (await ask(internet.port, name)).rcode() == dns.rcode.SERVFAIL, name
        assert (await ask(internet.port, "forged.test", flags=dns.flags.CD)).answer
