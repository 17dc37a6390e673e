"""Names under which strangers register: nobody's own, so nobody can verify one of them."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList


def is_public(name: str) -> bool:
    """Whether `name` (as `names.normal` gives it) is a public suffix ("co.uk"; also "github.io", whose users are not
    GitHub).  A top-level domain that the list does not know is one too."""
    return bool(loaded().is_public(name))


async def is_nobodys(name: str) -> bool:
    """`is_public`, where an event loop must not stand still while the list is read."""
    if not loaded.cache_info().currsize:
        await asyncio.to_thread(loaded)
    return is_public(name)


@lru_cache(maxsize=1)
def loaded() -> PublicSuffixList:
    """Mozilla's list as the library embeds it; nothing is fetched.  To read it takes some 80 ms, where it is first
    needed."""
    from publicsuffixlist import PublicSuffixList  # noqa: PLC0415 # 10 ms that few processes need

    return PublicSuffixList()
