"""What `chappe up --demo` lays out: three people who know each other, a group, and something to read.

Running it again finds what is there: a profile that was made for the same system is kept, one that was made for another
is made anew, and one that a person has made is never touched.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from chappe.client import Client, Group, GroupTickChanged, Message, Tick, TickChanged, connect, register
from chappe.client.destination import to_group, to_person
from chappe.client.profiles import exists
from chappe.client.tasks import Tasks

MARK: Final = "demo.json"
"""In a profile: for which system it was made. In a data folder: its demo is laid out."""
GROUP: Final = "Hikers"
PEOPLE: Final = {
    "alice": ("Alice", "+12025550171", "always on the way"),
    "bob": ("Bob", "+12025550172", "has the map"),
    "carol": ("Carol", "+12025550173", "has the rope"),
}
_SETTLE_S: Final = 10.0


class Demo(NamedTuple):
    """What was laid out."""

    profiles: dict[str, str]
    """The name of each person's profile."""
    is_new: bool
    """Whether anything was said, or all was there before."""


async def lay_out(home: Path, data: Path, ws: Sequence[str]) -> Demo:
    """Makes the people of the demo, and lets them talk unless they have done so.

    Args:
        home: The folder of all profiles.
        data: The data folder of the system.
        ws: Its WebSocket addresses.

    Raises:
        ChappeClientError: The system does not do what it should.
    """
    profiles = {name: await _profile(home, data, name, ws) for name in PEOPLE}
    is_new = not (data / MARK).exists()
    if is_new:
        async with _everybody(home, profiles) as actors:
            await _talk(actors, await _introduce(actors))
        (data / MARK).write_text(json.dumps(profiles) + "\n", encoding="utf-8")
    return Demo(profiles, is_new)


def next_steps(command: str, demo: Demo) -> str:
    """Returns what to type next, for people."""
    alice, bob, carol = demo.profiles.values()
    return f"""
Alice, Bob and Carol know each other and are in the group {GROUP}. In two more terminals:

  {command} --profile {alice} chat
  {command} --profile {bob} chat

  {command} --profile {carol} send {GROUP} "who takes the rope?"
  {command} --profile {alice} info {GROUP}"""


async def _profile(home: Path, data: Path, name: str, ws: Sequence[str]) -> str:
    """Returns the name of somebody's profile in this system, made if need be."""
    made_for = {"data": str(data), "ws": list(ws)}
    for profile in (name, f"{name}-demo"):
        folder = home / "profiles" / profile
        mark = _read(folder / MARK)
        if exists(folder) and mark is None:
            continue
        if not exists(folder) or mark != made_for or not (data / MARK).exists():
            shown, number, _ = PEOPLE[name]
            await register(ws, number, name=shown, profile=folder, is_replacing=True)
            (folder / MARK).write_text(json.dumps(made_for) + "\n", encoding="utf-8")
        return profile
    return f"{name}-demo"


def _read(path: Path) -> object:
    with suppress(OSError, ValueError):
        return json.loads(path.read_text(encoding="utf-8"))
    return None


class Actor:
    """One person of the demo at its device."""

    def __init__(self, me: Client) -> None:
        self.me = me
        self._seen: set[bytes] = set()
        self._ticks: dict[bytes, Tick] = {}
        self._changed = asyncio.Event()

    async def look(self) -> None:
        """Takes note of what comes."""
        async for event in self.me.events():
            if isinstance(event, Message):
                self._seen.add(event.message_id)
            elif isinstance(event, TickChanged):
                self._ticks[event.message_id] = event.tick
            elif isinstance(event, GroupTickChanged):
                self._ticks[event.message_id] = event.counts.tick
            self._changed.set()

    async def gets(self, message: Message) -> None:
        """Waits until the message of another is here; not for ever."""
        await self._until(lambda: message.message_id in self._seen)

    async def sees(self, message: Message, tick: Tick) -> None:
        """Waits until the own message has come so far; not for ever."""
        await self._until(lambda: self._ticks.get(message.message_id, Tick.NONE) >= tick)

    async def reads(self, message: Message) -> None:
        """Reads the message of another, once it is here."""
        await self.gets(message)
        chat = to_group(message.group_id) if message.group_id else to_person(self.me.user_id, message.sender_id)
        await self.me.mark_read(chat, message.message_id)

    async def _until(self, holds: Callable[[], bool]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_S):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()


@asynccontextmanager
async def _everybody(home: Path, profiles: dict[str, str]) -> AsyncGenerator[dict[str, Actor]]:
    tasks = Tasks()
    async with AsyncExitStack() as stack:
        actors: dict[str, Actor] = {}
        for name, profile in profiles.items():
            me = await stack.enter_async_context(connect(profile=home / "profiles" / profile))
            actors[name] = Actor(me)
            tasks.spawn(actors[name].look(), name=f"{name} of the demo looks")
        try:
            yield actors
        finally:
            await tasks.aclose()


async def _introduce(actors: dict[str, Actor]) -> Group:
    for name, actor in actors.items():
        await actor.me.account.update_profile(about=PEOPLE[name][2])
        for other, (shown, number, _) in PEOPLE.items():
            if other != name:
                await actor.me.people.add(number, shown)
    about = "Up on Saturdays, whatever the weather."
    return (await actors["alice"].me.groups.create(GROUP, ["Bob", "Carol"], description=about)).group


async def _talk(actors: dict[str, Actor], hikers: Group) -> None:
    alice, bob, carol = actors.values()
    await alice.reads(await bob.me.send("Alice", "good morning! Is Saturday still on?"))
    await bob.reads(await alice.me.send("Bob", "it is. Eight o'clock at the station?"))
    await alice.reads(await bob.me.send("Alice", "I will be there 👍"))
    asked = await alice.me.send(hikers, "Saturday, eight o'clock, at the station. Who is in?")
    await bob.reads(asked)
    await carol.reads(asked)
    said = await bob.me.send(hikers, "I am, and I bring the map")
    await alice.reads(said)
    await carol.gets(said)
    await alice.reads(await carol.me.send(hikers, "me too!"))
    last = await alice.me.send(hikers, "wonderful")
    await bob.reads(last)
    await alice.sees(last, Tick.DELIVERED)
    await alice.sees(asked, Tick.READ)
    await carol.me.send("Alice", "did you see my gloves anywhere?")
    await alice.gets(await carol.me.send("Alice", "the red ones"))
