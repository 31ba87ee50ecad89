"""Whether a password is the right one: argon2id, in threads, because it takes a tenth of a second and 64 MiB each time.

So only a few are compared at a time. Each user has a lane in which tries wait: who guesses at one name delays nobody who signs in
with another. A name that nobody has waits, and is compared, like that of some user, always the same one.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import secrets
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from shardd.dashboard.turns import CrowdedError, Turns
from shardd.errors import SharddError
from shardd.supervisor.admin.dashboard import User

AT_ONCE: Final = 2
"""Passwords that are checked at the same time."""
QUEUE: Final = 30
"""Those that wait for it, at most."""
NICE: Final = 10
"""Niceness of what checks passwords."""
SHORTEST: Final = 12
"""Characters of a password."""
LONGEST: Final = 500
_HASHER: Final = PasswordHasher()


class BusyError(SharddError):
    """Too many passwords are being checked."""


def make_hash(password: str) -> str:
    """Of a new password."""
    return _HASHER.hash(password)


class Passwords:
    """Checks them."""

    def __init__(self) -> None:
        self._turns = Turns(AT_ONCE, QUEUE)
        self._threads = ThreadPoolExecutor(AT_ONCE, "password", _give_way)
        self._key = secrets.token_bytes(16)

    async def are_right(self, users: Mapping[str, User], name: str, password: str, rank: int) -> bool:
        """Whether this is the password of that user. `rank`: see `Turns`. Raises BusyError: nothing was compared.

        It takes as long for a name that nobody has, so that times do not tell them apart.
        """
        hashes = {name: user.password for name, user in users.items() if user.password is not None}
        if not hashes or len(password) > LONGEST:
            return False
        user = name if name in hashes else self._somebody(sorted(hashes), name)
        try:
            async with self._turns.turn(user, rank):
                loop = asyncio.get_running_loop()
                right = await loop.run_in_executor(self._threads, _is_right, hashes[user], password)
        except CrowdedError:
            raise BusyError("Too many people sign in at the same moment. Try again in a few seconds.") from None
        return right and user == name

    def _somebody(self, names: list[str], name: str) -> str:
        digest = hmac.digest(self._key, name.encode(errors="surrogatepass"), hashlib.sha256)
        return names[int.from_bytes(digest[:8]) % len(names)]


def _give_way() -> None:
    """Workers come first: who tries passwords takes only what they leave. Linux has a niceness for each thread."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


def _is_right(known: str, password: str) -> bool:
    try:
        return _HASHER.verify(known, password)
    except (Argon2Error, InvalidHashError, UnicodeEncodeError):
        return False
