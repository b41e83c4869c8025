"""The people of a benchmark: made through the real registration calls, signed in with real tokens."""

import asyncio
import itertools
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from chappe.api.identity.v1 import group_pb2, group_service_pb2, session_service_pb2
from chappe.api.identity.v1 import registration_service_pb2 as registration_pb2
from chappe.client.device import Device, DeviceKey, signed_hello
from chappe.client.frames import anonymous_hello
from chappe.client.mint import IdMint, mint_tag_of
from chappe.client.seams import SystemRandomness
from chappe.testing import HistoryWriter, actor_of
from tests.bench.connection import Connection, dial
from tests.bench.traffic import LoadError, Person, Traffic

_REGISTRATION = "chappe.api.identity.v1.RegistrationService/"
_CREATE_SESSION = "chappe.api.identity.v1.SessionService/CreateSession"
_CREATE_GROUP = "chappe.api.identity.v1.GroupService/CreateGroup"
_AGENT = "chappe-bench"
_DOORS = 8
_AT_ONCE_EACH = 4
_DIALS = 64
_FRESH_MS = 5 * 60_000
"""A token with less time left is replaced before it is used."""


class People:
    """Everybody who takes part, by number."""

    def __init__(self, url: str, traffic: Traffic, area: str, histories: Path | None) -> None:
        """Prepares.

        Args:
            url: The WebSocket address of the edge.
            traffic: Told of what the connections receive.
            area: How the phone numbers of these people begin, in digits.
            histories: The folder for a history of each person; None to write none.
        """
        self.persons: list[Person] = []
        self._url = url
        self._host = urlsplit(url).netloc
        self._traffic = traffic
        self._area = area
        self._histories = histories
        self._randomness = SystemRandomness()

    async def register(self, count: int) -> None:
        """Makes so many more people, each with an account, a device and a token."""
        doors = [await self._anonymous() for _ in range(min(_DOORS, count))]
        numbers = iter(range(len(self.persons), len(self.persons) + count))
        # Places are kept in the order of the phone numbers, whoever is done first.
        made: dict[int, Person] = {}

        async def work(door: Connection) -> None:
            for number in numbers:
                made[number] = await self._register(door, number)

        await asyncio.gather(*(work(door) for door in doors for _ in range(_AT_ONCE_EACH)))
        self.persons += [made[number] for number in sorted(made)]
        for door in doors:
            door.hang_up()

    async def connect(self, persons: Sequence[Person]) -> list[float]:
        """Signs people in, 64 at a time; returns the seconds from dialling to CaughtUp of each."""
        await self._refresh([person for person in persons if not person.is_connected])
        waiting = iter([person for person in persons if not person.is_connected])
        # The first alone: an edge that has no key of tokens yet fetches them, and refuses whoever comes meanwhile.
        took_s = [await self.sign_in(person) for person in itertools.islice(waiting, 1)]

        async def work() -> list[float]:
            return [await self.sign_in(person) for person in waiting]

        for some_s in await asyncio.gather(*(work() for _ in range(_DIALS))):
            took_s += some_s
        return took_s

    async def sign_in(self, person: Person) -> float:
        """Connects one person; returns the seconds from dialling to CaughtUp."""
        start_s = time.perf_counter()
        connection = await dial(self._url, self._traffic, person)
        proof = person.device.hello(person.token, _now_ms(), secrets.token_bytes(16), self._host)
        connection.open(signed_hello(proof, cursor=person.cursor, receive_window=0, user_agent=_AGENT))
        await connection.caught_up
        return time.perf_counter() - start_s

    async def _anonymous(self) -> Connection:
        connection = await dial(self._url, self._traffic, None)
        connection.open(anonymous_hello(_AGENT))
        await connection.welcomed
        return connection

    async def _register(self, door: Connection, number: int) -> Person:
        key = DeviceKey.generate()
        start = registration_pb2.StartVerificationRequest(phone_number=f"+{self._area}{number:07d}")
        started = registration_pb2.StartVerificationResponse.FromString(
            await door.call(_REGISTRATION + "StartVerification", start.SerializeToString())
        )
        check = registration_pb2.CheckVerificationRequest(
            verification_id=started.verification_id, code=started.development_code
        )
        checked = registration_pb2.CheckVerificationResponse.FromString(
            await door.call(_REGISTRATION + "CheckVerification", check.SerializeToString())
        )
        register = registration_pb2.RegisterAccountRequest(
            registration_token=checked.registration_token,
            device_public_key=key.public,
            profile_name=f"bench {number}",
            platform=_AGENT,
            proof=key.registration_proof(checked.registration_token),
        )
        made = registration_pb2.RegisterAccountResponse.FromString(
            await door.call(_REGISTRATION + "RegisterAccount", register.SerializeToString())
        )
        device = Device(made.user_id, made.device_id, key)
        mint = IdMint(mint_tag_of(made.user_id, made.device_id), self._randomness)
        person = Person(number, device, mint, self._history(device))
        await self._fetch_token(door, person)
        return person

    def _history(self, device: Device) -> HistoryWriter | None:
        if self._histories is None:
            return None
        actor = actor_of(device.user_id, device.device_id)
        history = HistoryWriter(self._histories / f"{actor.replace('/', '-')}.jsonl", actor)
        history.note("device", device=actor)
        return history

    async def _fetch_token(self, door: Connection, person: Person) -> None:
        request = person.device.session_request(_now_ms(), secrets.token_bytes(16))
        answer = session_service_pb2.CreateSessionResponse.FromString(
            await door.call(_CREATE_SESSION, request.SerializeToString())
        )
        person.token, person.token_end_ms = answer.access_token, answer.expire_ms

    async def _refresh(self, persons: Sequence[Person]) -> None:
        stale = iter([person for person in persons if person.token_end_ms - _now_ms() < _FRESH_MS])
        doors: list[Connection] = []

        async def work() -> None:
            door: Connection | None = None
            for person in stale:
                if door is None:
                    door = await self._anonymous()
                    doors.append(door)
                await self._fetch_token(door, person)

        await asyncio.gather(*(work() for _ in range(_DOORS)))
        for door in doors:
            door.hang_up()


async def create_group(door: Connection, name: str, members: Sequence[Person]) -> group_pb2.Group:
    """Makes a group of people, which the first of them owns.

    Raises:
        LoadError: Somebody was not added, or the call failed.
    """
    others = [member.device.user_id for member in members[1:]]
    request = group_service_pb2.CreateGroupRequest(request_id=secrets.token_bytes(16), group_name=name, user_ids=others)
    answer = group_service_pb2.CreateGroupResponse.FromString(
        await door.call(_CREATE_GROUP, request.SerializeToString())
    )
    if answer.refusals:
        raise LoadError(f"{len(answer.refusals)} people could not be added to the group {name}")
    return answer.group


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
