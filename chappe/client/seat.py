"""A process's seat at a profile: the store with its thread, and who leads.

One process leads: it holds the lock of the profile's folder, the session and the outbox. The others follow through it.
When it ends, by whatever means, the kernel lets go of the lock, and one of those who follow leads on.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from chappe.client.errors import ProfileError, ProfileInUseError
from chappe.client.following import Following
from chappe.client.leading import Keep, Leading
from chappe.client.link import Link
from chappe.client.parts import ClientParts
from chappe.client.profiles import Profile, read_about, store_path
from chappe.client.store_sqlite import SqliteStore

JOIN_S: Final = 5.0
"""How long a process waits for one that holds the profile and cannot be followed."""

_PAUSE_S: Final = 0.02

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class Seat:
    """One process of a profile."""

    def __init__(self, address: str | Sequence[str], folder: Path, parts: ClientParts) -> None:
        """Prepares.

        Args:
            address: Of the edges; empty for those that the profile was made with.
            folder: Of the profile.
            parts: What the client is made of.
        """
        self._address = address
        self._folder = folder
        self._parts = parts
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="chappe-store")
        self._profile: Profile | None = None
        self.store: SqliteStore
        """The local store, once this process has joined."""
        self.user_id = b""
        """Whose profile it is; empty before."""
        self._device_id = 0

    async def join(self) -> Link:
        """Leads the profile if nobody does, and follows otherwise; the link is still to begin.

        Raises:
            ProfileError: There is no such profile, or it is in use by a process that cannot be followed.
            StoreError: The local store cannot be opened.
        """
        until_s = time.monotonic() + JOIN_S
        while True:
            try:
                return await self._lead()
            except ProfileInUseError:
                if not self._parts.may_follow:
                    raise
                # Whoever holds the profile may be about to serve, or just ending.
                with suppress(OSError):
                    return await self._follow()
                if time.monotonic() > until_s:
                    raise
            await asyncio.sleep(_PAUSE_S)

    async def join_again(self) -> Link:
        """Joins after whoever led has gone, however long that takes to store what it has.

        Raises:
            ProfileError: There is no such profile any more, or it was replaced.
            StoreError: The local store cannot be read.
        """
        while True:
            with suppress(ProfileInUseError):
                return await self.join()

    async def in_store(
        self, function: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Result:
        """Runs a function in the thread of the store."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(function, *args, **kwargs))

    async def close(self) -> None:
        """Closes the store and lets go of the profile."""
        if self.user_id:
            await self.in_store(self.store.close)
        self._thread.shutdown()
        if self._profile is not None:
            self._profile.close()

    async def _lead(self) -> Link:
        profile = Profile.open(self._folder)
        try:
            await self._open_store(may_migrate=True)
        except BaseException:
            profile.close()
            raise
        self._profile = profile
        return Leading(Keep(profile, self.store, self.in_store, self._thread), self._address, self._parts)

    async def _follow(self) -> Link:
        link = await Following.open(self._folder)
        try:
            await self._open_store(may_migrate=False)
        except BaseException:
            await link.stop()
            raise
        return link

    async def _open_store(self, *, may_migrate: bool) -> None:
        about = read_about(self._folder)
        user_id, path = bytes.fromhex(about.user_id), store_path(self._folder)
        if self.user_id:
            if (user_id, about.device_id) != (self.user_id, self._device_id):
                raise ProfileError(f"the profile in {self._folder} was replaced; start this program again")
            return
        self.store = await self.in_store(SqliteStore, path, user_id, about.device_id, may_migrate=may_migrate)
        self.user_id, self._device_id = user_id, about.device_id
