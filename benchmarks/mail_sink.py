"""A relay that costs little: takes all mail, with PIPELINING, and answers after a while if wished.

`python -m benchmarks.mail_sink DELAY_S` prints its port.  What comes is looked at DELAY_S later: a round trip.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

HELLO = b"250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 10000000\r\n"
OK = b"250 2.0.0 ok\r\n"
GO_AHEAD = b"354 go ahead\r\n"
END = b"\r\n.\r\n"


class MailSink(asyncio.Protocol):
    """One connection."""

    delay_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.in_message = False
        self.unread = b""
        self.transport.write(b"220 sink.example\r\n")

    def data_received(self, data: bytes) -> None:
        if MailSink.delay_s:
            asyncio.get_running_loop().call_later(MailSink.delay_s, self.read, data)
        else:
            self.read(data)

    def read(self, data: bytes) -> None:
        data = self.unread + data
        said = list[bytes]()
        while data:
            stop = END if self.in_message else b"\r\n"
            head, found, rest = data.partition(stop)
            if not found:
                break
            data = rest
            said.append(self.answer(head))
        self.unread = data
        if said and not self.transport.is_closing():
            self.transport.write(b"".join(said))

    def answer(self, line: bytes) -> bytes:
        if self.in_message:
            self.in_message = False
            return OK
        if line == b"DATA":
            self.in_message = True
            return GO_AHEAD
        return HELLO if line.startswith(b"EHLO") else OK


async def main(delay_s: float) -> None:
    MailSink.delay_s = delay_s
    server = await asyncio.get_running_loop().create_server(MailSink, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(float(sys.argv[1])))
