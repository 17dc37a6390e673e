"""zstd, in pieces of bounded size."""

from __future__ import annotations

import sys
from collections.abc import Iterator

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LEVEL = 3
PIECE_BYTES = 1 << 20


class Damaged(ValueError):
    """What was read is no whole file of zstd."""


def compressor() -> zstd.ZstdCompressor:
    """With a checksum of its own at the end, so that `zstd -t` tells too."""
    parameter = zstd.CompressionParameter
    return zstd.ZstdCompressor(options={parameter.compression_level: LEVEL, parameter.checksum_flag: 1})


class Decompressor:
    """A file of one frame.  However much a piece may grow, it comes out by the MiB."""

    def __init__(self) -> None:
        self._zstd = zstd.ZstdDecompressor()

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Damaged if that cannot be read, or goes on after its end."""
        while data or not (self._zstd.eof or self._zstd.needs_input):
            if self._zstd.eof:
                raise Damaged("there is more after its end")
            try:
                piece = self._zstd.decompress(data, PIECE_BYTES)
            except zstd.ZstdError as error:
                raise Damaged(str(error)) from None
            data = self._zstd.unused_data if self._zstd.eof else b""
            if piece:
                yield piece

    def end(self) -> None:
        """Damaged if it is not whole."""
        if not self._zstd.eof:
            raise Damaged("its end is missing")
