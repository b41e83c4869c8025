"""svc_identity as a scene needs it: who there is, who blocks whom, and changes that may be told late."""

import base64
from collections import Counter, defaultdict
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chappe.api.edge.v1 import item_pb2
from chappe.api.identity.v1 import directory_service_pb2, session_service_pb2
from chappe.api.type.v1 import stream_pb2
from chappe.client.device import Device, DeviceKey
from chappe.client.tokens import Token
from chappe.runtime.clock import Clock, Randomness, SystemRandomness
from tests.mutations.faults import Gate

KEY_ID = "scene"
TOKEN_S = 900
HEARTBEAT_S = 0.2
CREDITS = 100_000


class _Members(NamedTuple):
    """Who is in a group, and who was."""

    joined: dict[bytes, int]
    """By user, the version with which the membership began."""
    windows: defaultdict[bytes, list[directory_service_pb2.MembershipWindow]]
    """By user, the memberships that are over."""


class Directory:
    """Both services of svc_identity that the others call, over what is in memory."""

    def __init__(self, clock: Clock, randomness: Randomness | None = None, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._clock = clock
        self._randomness = randomness or SystemRandomness()
        self._heartbeat_s = heartbeat_s
        self._signing_key = Ed25519PrivateKey.from_private_bytes(self._randomness.token(32))
        self._users: dict[bytes, directory_service_pb2.DirectoryUser] = {}
        self._devices: dict[tuple[bytes, int], Device] = {}
        self._changes: list[directory_service_pb2.DirectoryChange] = []
        self._groups: dict[bytes, _Members] = {}
        self._versions: Counter[bytes] = Counter()
        self._is_held = False
        self._is_silent = False
        self.after_members = Gate()
        """Holds the answer to a question who is in a group."""

    def enrol(self) -> Device:
        """Makes a user with one device."""
        user_id = self._new_id()
        self._users[user_id] = directory_service_pb2.DirectoryUser(
            user_id=user_id,
            state=directory_service_pb2.USER_STATE_ACTIVE,
            version=1,
            device_ids=[1],
            device_generations=[1],
            gives_read_receipts=True,
        )
        return self._device(user_id, 1)

    def link(self, user_id: bytes) -> Device:
        """Gives a user another device, before anybody has asked for the user."""
        user = self._users[user_id]
        user.device_ids.append(len(user.device_ids) + 1)
        user.device_generations.append(1)
        return self._device(user_id, len(user.device_ids))

    def _device(self, user_id: bytes, device_id: int) -> Device:
        key = DeviceKey(Ed25519PrivateKey.from_private_bytes(self._randomness.token(32)))
        device = self._devices[user_id, device_id] = Device(user_id, device_id, key)
        return device

    def _new_id(self) -> bytes:
        return self._clock.wall_ms().to_bytes(6, "big") + b"\x70\x00\x80" + self._randomness.token(7)

    def token(self, device: Device) -> Token:
        """Returns an access token of a device."""
        now_s = self._clock.wall_ms() // 1000
        claims = {
            "iss": "chappe",
            "aud": "chappe-edge",
            "sub": device.user_id.hex(),
            "did": device.device_id,
            "sid": self._randomness.token(16).hex(),
            "gen": 1,
            "cnf": {"x": base64.urlsafe_b64encode(device.key.public).rstrip(b"=").decode()},
            "iat": now_s,
            "nbf": now_s - 5,
            "exp": now_s + TOKEN_S,
        }
        text = jwt.encode(claims, self._signing_key, algorithm="EdDSA", headers={"kid": KEY_ID})
        return Token(text, (now_s + TOKEN_S) * 1000)

    def block(self, blocker: bytes, blocked: bytes) -> None:
        """Lets a user block another, and tells it."""
        self._users[blocker].blocked_user_ids.append(blocked)
        self._changed(blocker)

    def unblock(self, blocker: bytes, blocked: bytes) -> None:
        """Ends a block, and tells it."""
        self._users[blocker].blocked_user_ids.remove(blocked)
        self._changed(blocker)

    def found(self, *user_ids: bytes) -> bytes:
        """Makes a group of users; the first owns it."""
        group_id = self._new_id()
        self._versions[group_id] = 1
        self._groups[group_id] = _Members(dict.fromkeys(user_ids, 1), defaultdict(list))
        return group_id

    def add(self, group_id: bytes, user_id: bytes) -> int:
        """Adds a member, and tells it; returns the version of the group."""
        self._groups[group_id].joined[user_id] = self._versions[group_id] + 1
        return self._group_changed(group_id)

    def remove(self, group_id: bytes, user_id: bytes) -> int:
        """Removes a member, and tells it; returns the version of the group."""
        group = self._groups[group_id]
        window = directory_service_pb2.MembershipWindow(
            joined_version=group.joined.pop(user_id), left_version=self._versions[group_id] + 1
        )
        group.windows[user_id].append(window)
        return self._group_changed(group_id)

    def hold_changes(self) -> None:
        """Tells of nothing from now on."""
        self._is_held = True

    def fall_silent(self) -> None:
        """Tells of nothing from now on, nor that there is nothing to tell; questions are answered as ever."""
        self._is_held = self._is_silent = True

    def _group_changed(self, group_id: bytes) -> int:
        self._versions[group_id] += 1
        change = directory_service_pb2.DirectoryChange(
            kind=directory_service_pb2.DIRECTORY_CHANGE_KIND_GROUP,
            group_id=group_id,
            version=self._versions[group_id],
        )
        self._tell(change)
        return self._versions[group_id]

    def _changed(self, user_id: bytes) -> None:
        user = self._users[user_id]
        user.version += 1
        change = directory_service_pb2.DirectoryChange(
            kind=directory_service_pb2.DIRECTORY_CHANGE_KIND_USER, user_id=user_id, version=user.version
        )
        self._tell(change)

    def _tell(self, change: directory_service_pb2.DirectoryChange) -> None:
        if not self._is_held:
            self._changes.append(change)

    def __getattr__(self, name: str) -> Any:
        """Returns a method that nobody calls in a scene."""
        if not name[0].isupper():
            raise AttributeError(name)
        return None

    async def GetSigningKeys(self, request: Any, context: Any) -> session_service_pb2.GetSigningKeysResponse:
        public = self._signing_key.public_key().public_bytes_raw()
        key = session_service_pb2.SigningKey(key_id=KEY_ID, public_key=public)
        return session_service_pb2.GetSigningKeysResponse(keys=[key])

    async def CreateSession(self, request: Any, context: Any) -> session_service_pb2.CreateSessionResponse:
        token = self.token(self._devices[request.user_id, request.device_id])
        return session_service_pb2.CreateSessionResponse(access_token=token.access_token, expire_ms=token.expire_ms)

    async def BatchGetUsers(self, request: Any, context: Any) -> directory_service_pb2.BatchGetUsersResponse:
        unknown = directory_service_pb2.DirectoryUser(state=directory_service_pb2.USER_STATE_UNKNOWN)
        users = [self._users.get(user_id, unknown) for user_id in request.user_ids]
        return directory_service_pb2.BatchGetUsersResponse(users=users)

    async def CheckPrivacy(self, request: Any, context: Any) -> directory_service_pb2.CheckPrivacyResponse:
        pairs = zip(request.viewer_user_ids, request.target_user_ids, strict=True)
        may_see = [not self._are_apart(viewer_id, target_id) for viewer_id, target_id in pairs]
        return directory_service_pb2.CheckPrivacyResponse(may_see=may_see)

    def _are_apart(self, one: bytes, other: bytes) -> bool:
        return other in self._users[one].blocked_user_ids or one in self._users[other].blocked_user_ids

    async def ListGroupMembers(self, request: Any, context: Any) -> directory_service_pb2.ListGroupMembersResponse:
        answer = self._group(request.group_id)
        await self.after_members.pass_through()
        return directory_service_pb2.ListGroupMembersResponse(group=answer)

    def _group(self, group_id: bytes) -> directory_service_pb2.DirectoryGroup:
        group = self._groups.get(group_id)
        if group is None:
            return directory_service_pb2.DirectoryGroup(group_id=group_id)
        return directory_service_pb2.DirectoryGroup(
            group_id=group_id,
            exists=True,
            version=self._versions[group_id],
            member_user_ids=list(group.joined),
            roles=[item_pb2.GROUP_ROLE_MEMBER] * len(group.joined),
            joined_versions=list(group.joined.values()),
        )

    async def BatchGetMemberships(
        self, request: Any, context: Any
    ) -> directory_service_pb2.BatchGetMembershipsResponse:
        pairs = zip(request.group_ids, request.user_ids, strict=True)
        memberships = [self._membership(group_id, user_id) for group_id, user_id in pairs]
        return directory_service_pb2.BatchGetMembershipsResponse(memberships=memberships)

    def _membership(self, group_id: bytes, user_id: bytes) -> directory_service_pb2.Membership:
        group = self._groups[group_id]
        joined_version = group.joined.get(user_id, 0)
        windows = list(group.windows[user_id])
        if joined_version:
            windows.append(directory_service_pb2.MembershipWindow(joined_version=joined_version))
        return directory_service_pb2.Membership(
            group_id=group_id,
            user_id=user_id,
            is_member=bool(joined_version),
            role=item_pb2.GROUP_ROLE_MEMBER,
            windows=windows,
            group_version=self._versions[group_id],
        )

    async def WatchChanges(self, request_iterator: Any, context: Any) -> None:
        hello = stream_pb2.StreamHello(protocol=1, peer_id="directory", boot_id=1, credits=CREDITS)
        number, sent = 0, len(self._changes)
        first = await context.read()
        if first.cursor:
            sent = int.from_bytes(first.cursor, "big")
        await context.write(directory_service_pb2.WatchChangesResponse(hello=hello))
        while True:
            while sent < len(self._changes):
                number += 1
                news, sent = self._changes[sent:], len(self._changes)
                batch = directory_service_pb2.ChangeBatch(number=number, changes=news, cursor=_cursor_of(sent))
                await context.write(directory_service_pb2.WatchChangesResponse(batch=batch))
            until_ms, cursor = self._clock.wall_ms(), _cursor_of(sent)
            heartbeat = directory_service_pb2.ChangeHeartbeat(complete_until_ms=until_ms, cursor=cursor)
            if not self._is_silent:
                await context.write(directory_service_pb2.WatchChangesResponse(heartbeat=heartbeat))
            await self._clock.sleep(self._heartbeat_s)


def _cursor_of(sent: int) -> bytes:
    return sent.to_bytes(8, "big")
