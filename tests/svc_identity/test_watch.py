"""WatchChanges over a real loopback channel."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

import grpc.aio
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chappe.api.identity.v1 import (
    contact_service_pb2,
    group_service_pb2,
    profile_service_pb2,
    session_service_pb2,
    settings_pb2,
)
from chappe.api.identity.v1 import directory_service_pb2 as wire
from chappe.api.type.v1 import stream_pb2
from chappe.runtime.errors import from_rpc_error
from svc_identity.model import Cursor, DeviceRef
from svc_identity.protocol.cursor import encode_cursor
from tests.svc_identity.doors import CALLER, CONTACT, DIRECTORY, GROUP, PROFILE, SESSION, Door, config, open_door
from tests.svc_identity.people import new_phone


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    async with open_door(config()) as opened:
        yield opened


class Reader:
    """One reader of changes."""

    def __init__(self, door: Door, *, cursor: bytes = b"", credits_: int = 1000, boot_id: int = 7) -> None:
        self._call: Any = DIRECTORY(door.channel).WatchChanges(metadata=[(CALLER, "svc-message")])
        hello = stream_pb2.StreamHello(protocol=1, peer_id="test", boot_id=boot_id, credits=credits_)
        self._hello = wire.WatchChangesRequest(hello=hello, cursor=cursor)

    async def __aenter__(self) -> Self:
        await self._call.write(self._hello)
        first = await self._call.read()
        assert first.hello.boot_id
        assert first.hello.credits > 100_000  # so that a reader may send its grants
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._call.cancel()

    async def until(self, is_found: Callable[[wire.WatchChangesResponse], bool]) -> list[wire.WatchChangesResponse]:
        """Reads until a frame is found; returns all that were read."""
        seen: list[wire.WatchChangesResponse] = []
        async with asyncio.timeout(30):
            while not seen or not is_found(seen[-1]):
                frame = await self._call.read()
                assert frame is not grpc.aio.EOF
                seen.append(frame)
        return seen

    async def write(self, request: wire.WatchChangesRequest) -> None:
        await self._call.write(request)

    async def end(self) -> grpc.StatusCode:
        await self._call.done_writing()
        async with asyncio.timeout(30):
            while await self._call.read() is not grpc.aio.EOF:
                pass
            code: grpc.StatusCode = await self._call.code()
        return code


def is_heartbeat(frame: wire.WatchChangesResponse) -> bool:
    return frame.WhichOneof("frame") == "heartbeat"


def is_batch(frame: wire.WatchChangesResponse) -> bool:
    return frame.WhichOneof("frame") == "batch"


def changes_of(frames: list[wire.WatchChangesResponse]) -> list[wire.DirectoryChange]:
    return [change for frame in frames if is_batch(frame) for change in frame.batch.changes]


async def rename(door: Door, device: DeviceRef, name: str) -> int:
    request = profile_service_pb2.UpdateProfileRequest(profile_name=name)
    version: int = (await door.call(PROFILE, "UpdateProfile", request, device)).profile.version
    return version


async def test_reader_gets_changes_from_now_on(door: Door) -> None:
    device = await door.register(Ed25519PrivateKey.generate())
    async with Reader(door) as reader:
        await reader.until(is_heartbeat)

        version = await rename(door, device, "New")

        (change,) = changes_of(await reader.until(is_batch))
        assert (change.kind, change.user_id) == (wire.DIRECTORY_CHANGE_KIND_USER, device.user_id)
        assert change.version == version


async def test_heartbeat_follows_what_it_covers(door: Door) -> None:
    device = await door.register(Ed25519PrivateKey.generate())
    async with Reader(door) as reader:
        first = (await reader.until(is_heartbeat))[-1].heartbeat.complete_until_ms
        door.clock.pass_s(5)
        await rename(door, device, "New")

        # A heartbeat of this time may come before the change was made.
        seen = await reader.until(is_batch)
        following = (await reader.until(is_heartbeat))[-1].heartbeat

        assert [change.user_id for change in changes_of(seen)] == [device.user_id]
        assert following.complete_until_ms >= first + 5000


async def test_reader_that_was_away_gets_what_it_missed(door: Door) -> None:
    device = await door.register(Ed25519PrivateKey.generate())
    async with Reader(door) as reader:
        cursor = (await reader.until(is_heartbeat))[-1].heartbeat.cursor
    versions = [await rename(door, device, f"Name {number}") for number in range(5)]

    async with Reader(door, cursor=cursor) as reader:
        seen = await reader.until(is_heartbeat)

    assert [change.version for change in changes_of(seen)] == versions


async def test_batches_keep_to_the_credit(door: Door) -> None:
    device = await door.register(Ed25519PrivateKey.generate())
    async with Reader(door) as reader:
        cursor = (await reader.until(is_heartbeat))[-1].heartbeat.cursor
    versions = [await rename(door, device, f"Name {number}") for number in range(5)]

    async with Reader(door, cursor=cursor, credits_=2) as reader:
        first = await reader.until(is_batch)
        await reader.write(wire.WatchChangesRequest(credit=stream_pb2.StreamCredit(items=10)))
        rest = await reader.until(is_heartbeat)

    assert [change.version for change in changes_of(first)] == versions[:2]
    assert [change.version for change in changes_of(rest)] == versions[2:]
    assert first[0].batch.cursor == cursor
    assert [frame.batch.number for frame in first + rest if is_batch(frame)] == [1, 2]


async def test_revocation_names_device_and_session(door: Door) -> None:
    key = Ed25519PrivateKey.generate()
    device = await door.register(key)
    session = await door.call(SESSION, "CreateSession", door.sign_in(device, key))
    async with Reader(door) as reader:
        await reader.until(is_heartbeat)

        request = session_service_pb2.RevokeSessionRequest(device_id=1)
        await door.call(SESSION, "RevokeSession", request, device)

        (change,) = changes_of(await reader.until(is_batch))
        assert change.kind == wire.DIRECTORY_CHANGE_KIND_SESSION_REVOKED
        assert (change.device_id, change.session_id) == (1, session.session_id)


async def test_change_of_a_group_names_the_group_and_its_version(door: Door) -> None:
    owner = await door.register(Ed25519PrivateKey.generate())
    async with Reader(door) as reader:
        await reader.until(is_heartbeat)

        request = group_service_pb2.CreateGroupRequest(request_id=bytes(16), group_name="Towers")
        group = (await door.call(GROUP, "CreateGroup", request, owner)).group

        (change,) = changes_of(await reader.until(is_batch))
        assert (change.kind, change.user_id) == (wire.DIRECTORY_CHANGE_KIND_GROUP, b"")
        assert (change.group_id, change.version) == (group.group_id, 1)


async def test_new_setting_is_a_change_of_its_user(door: Door) -> None:
    user = await door.register(Ed25519PrivateKey.generate())
    async with Reader(door) as reader:
        await reader.until(is_heartbeat)

        privacy = settings_pb2.PrivacySettings(read_receipts=False)
        request = profile_service_pb2.UpdateSettingsRequest(settings=settings_pb2.Settings(privacy=privacy))
        version = (await door.call(PROFILE, "UpdateSettings", request, user)).version

        (change,) = changes_of(await reader.until(is_batch))
        assert (change.kind, change.user_id) == (wire.DIRECTORY_CHANGE_KIND_USER, user.user_id)
        assert change.version == version


async def test_new_contact_is_a_change_of_its_owner(door: Door) -> None:
    owner = await door.register(Ed25519PrivateKey.generate())
    async with Reader(door) as reader:
        await reader.until(is_heartbeat)

        request = contact_service_pb2.AddContactRequest(phone_number=new_phone())
        await door.call(CONTACT, "AddContact", request, owner)

        (change,) = changes_of(await reader.until(is_batch))
        assert (change.kind, change.user_id) == (wire.DIRECTORY_CHANGE_KIND_USER, owner.user_id)


@pytest.mark.parametrize(
    "cursor",
    [
        b"nonsense",
        encode_cursor(Cursor(99, 1, 1)),
        encode_cursor(Cursor(1, 1, 1 << 40)),
        encode_cursor(Cursor(1, 0, 0)),
    ],
)
async def test_cursor_of_another_log_is_refused(door: Door, cursor: bytes) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        async with Reader(door, cursor=cursor) as reader:
            await reader.until(is_heartbeat)

    assert from_rpc_error(refused.value).reason == "CURSOR_EXPIRED"


async def test_stream_without_a_proper_hello_is_refused(door: Door) -> None:
    call: Any = DIRECTORY(door.channel).WatchChanges(metadata=[(CALLER, "svc-edge")])
    await call.write(wire.WatchChangesRequest(credit=stream_pb2.StreamCredit(items=1)))

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call.read()

    assert from_rpc_error(refused.value).reason == "INVALID_FIELD"


async def test_second_hello_ends_the_stream(door: Door) -> None:
    async with Reader(door) as reader:
        hello = stream_pb2.StreamHello(protocol=1, peer_id="test", boot_id=7)
        await reader.write(wire.WatchChangesRequest(hello=hello))

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await reader.until(is_batch)

    assert from_rpc_error(refused.value).reason == "INVALID_FIELD"


async def test_reader_that_half_closes_ends_cleanly(door: Door) -> None:
    async with Reader(door) as reader:
        await reader.until(is_heartbeat)

        assert await reader.end() == grpc.StatusCode.OK


async def test_draining_directory_says_so_and_waits_for_the_half_close() -> None:
    async with open_door(config()) as door, Reader(door) as reader:
        await reader.until(is_heartbeat)
        drained = asyncio.gather(*(hook() for hook in door.app._hooks))

        await reader.until(lambda frame: frame.WhichOneof("frame") == "drain")

        assert not drained.done()
        assert await reader.end() == grpc.StatusCode.OK
        await drained
