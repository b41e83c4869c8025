"""How a profile is made, over a real socket to a small edge: whatever fails on the way, no key is lost."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from chappe import client as chappe_client
from chappe.api.edge.v1 import server_frame_pb2
from chappe.api.identity.v1 import device_service_pb2, registration_service_pb2
from chappe.api.type.v1 import error_reason_pb2 as reasons
from chappe.client.device import DeviceKey
from chappe.client.errors import NotConnectedError, ProfileInUseError, RefusedError
from chappe.client.methods import CHECK_VERIFICATION, LINK_DEVICE, REGISTER_ACCOUNT, START_VERIFICATION
from chappe.client.profiles import Profile, exists, profiles, read_about, read_key
from tests.client.model_edge import DEVICE, ME, PEER
from tests.client.socket_edge import SocketEdge

PHONE = "+441632960001"

Answer = bytes | server_frame_pb2.CallError


class Directory:
    """Makes accounts, for one key each token and code; answers may be lost on the way."""

    def __init__(self, edge: SocketEdge) -> None:
        self.keys: list[bytes] = []
        """The public keys that were given, each time."""
        self.is_cut = False
        """The next answer is lost."""
        self.refusal = reasons.ERROR_REASON_UNSPECIFIED
        """Why the next key is refused."""
        self._edge = edge
        edge.answers |= {
            START_VERIFICATION.name: self._start,
            CHECK_VERIFICATION.name: self._check,
            REGISTER_ACCOUNT.name: self._register,
            LINK_DEVICE.name: self._link,
        }

    @property
    def codes(self) -> int:
        """How many codes were sent."""
        return self._edge.calls.count(START_VERIFICATION.name)

    def _start(self, _payload: bytes) -> Answer:
        started = registration_service_pb2.StartVerificationResponse(
            verification_id=bytes(16), development_code="123456"
        )
        return started.SerializeToString()

    def _check(self, _payload: bytes) -> Answer:
        token = bytes([self.codes]) * 32
        return registration_service_pb2.CheckVerificationResponse(registration_token=token).SerializeToString()

    def _register(self, payload: bytes) -> Answer:
        self.keys.append(registration_service_pb2.RegisterAccountRequest.FromString(payload).device_public_key)
        made = registration_service_pb2.RegisterAccountResponse(user_id=PEER, device_id=2)
        return self._answer(made.SerializeToString())

    def _link(self, payload: bytes) -> Answer:
        self.keys.append(device_service_pb2.LinkDeviceRequest.FromString(payload).device_public_key)
        return self._answer(device_service_pb2.LinkDeviceResponse(user_id=PEER, device_id=2).SerializeToString())

    def _answer(self, made: bytes) -> Answer:
        if self.is_cut:
            self.is_cut = False
            self._edge.drop()
        if self.refusal:
            refusal, self.refusal = self.refusal, reasons.ERROR_REASON_UNSPECIFIED
            return server_frame_pb2.CallError(code=3, reason=refusal, detail="no")
        return made


@pytest.fixture
async def edge() -> AsyncIterator[SocketEdge]:
    async with SocketEdge() as edge:
        yield edge


@pytest.fixture
def directory(edge: SocketEdge) -> Directory:
    return Directory(edge)


async def register(edge: SocketEdge, folder: Path, *, name: str = "Alice", is_replacing: bool = False) -> None:
    await chappe_client.register(edge.address, PHONE, name=name, profile=folder, is_replacing=is_replacing)


async def link(edge: SocketEdge, folder: Path, *, code: str = "ABCD2345", is_replacing: bool = False) -> None:
    await chappe_client.link(edge.address, code, profile=folder, is_replacing=is_replacing)


Make = Callable[..., Awaitable[None]]
"""Makes a profile in a folder: `register` or `link`."""


def key_in(folder: Path) -> bytes:
    """Returns the public key of a profile that can be opened."""
    profile = Profile.open(folder)
    profile.close()
    return profile.device.key.public


@pytest.mark.parametrize("make", [register, link])
async def test_a_profile_in_use_is_not_replaced_and_nothing_is_asked_for_it(
    edge: SocketEdge, directory: Directory, folder: Path, make: Make
) -> None:
    before = key_in(folder)
    held = Profile.open(folder)

    with pytest.raises(ProfileInUseError, match="end that one"):
        await make(edge, folder, is_replacing=True)
    held.close()

    assert edge.calls == []
    assert key_in(folder) == before


@pytest.mark.parametrize("make", [register, link])
async def test_after_an_answer_that_was_lost_the_same_key_is_given_again(
    edge: SocketEdge, directory: Directory, tmp_path: Path, make: Make
) -> None:
    directory.is_cut = True
    with pytest.raises(NotConnectedError):
        await make(edge, tmp_path / "a")
    assert not exists(tmp_path / "a")

    await make(edge, tmp_path / "a")

    assert directory.keys == [key_in(tmp_path / "a")] * 2
    assert directory.codes == (make is register)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["key.pem", "lock", "profile.json"]


async def test_a_token_that_has_expired_meanwhile_takes_another_code(
    edge: SocketEdge, directory: Directory, tmp_path: Path
) -> None:
    directory.is_cut = True
    with pytest.raises(NotConnectedError):
        await register(edge, tmp_path / "a")
    directory.refusal = reasons.ERROR_REASON_INVALID_REGISTRATION_TOKEN

    await register(edge, tmp_path / "a")

    assert directory.codes == 2
    assert directory.keys[-1] == key_in(tmp_path / "a") != directory.keys[0]


async def test_a_name_that_was_refused_may_be_mended_without_another_code(
    edge: SocketEdge, directory: Directory, tmp_path: Path
) -> None:
    directory.refusal = reasons.ERROR_REASON_INVALID_FIELD
    with pytest.raises(RefusedError):
        await register(edge, tmp_path / "a", name=" ")

    await register(edge, tmp_path / "a")

    assert directory.codes == 1


async def test_another_code_takes_another_key(edge: SocketEdge, directory: Directory, tmp_path: Path) -> None:
    directory.is_cut = True
    with pytest.raises(NotConnectedError):
        await link(edge, tmp_path / "a", code="ABCD2345")

    await link(edge, tmp_path / "a", code="WXYZ2345")

    assert directory.keys[0] != directory.keys[1] == key_in(tmp_path / "a")


@pytest.mark.parametrize("make", [register, link])
async def test_a_profile_stays_as_it_was_when_its_successor_is_refused(
    edge: SocketEdge, directory: Directory, folder: Path, make: Make
) -> None:
    before = key_in(folder)
    (folder / "store.db").touch()
    directory.refusal = reasons.ERROR_REASON_DEPENDENCY_UNAVAILABLE

    with pytest.raises(RefusedError):
        await make(edge, folder, is_replacing=True)

    assert (key_in(folder), read_about(folder).user_id) == (before, ME.hex())
    assert (folder / "store.db").exists()


class Kill(BaseException):
    """Ends a process at once."""


def kill(*_: object, **__: object) -> None:
    """Stands for the first thing that is done once a profile is made: to take away what was there before."""
    raise Kill


@pytest.mark.parametrize("make", [register, link])
async def test_a_profile_whose_making_was_cut_in_the_middle_is_the_new_one(
    edge: SocketEdge, directory: Directory, folder: Path, monkeypatch: pytest.MonkeyPatch, make: Make
) -> None:
    (folder / "store.db").touch()

    monkeypatch.setattr(Path, "unlink", kill)
    with pytest.raises(Kill):
        await make(edge, folder, is_replacing=True)
    monkeypatch.undo()

    assert profiles(folder.parent) == ["alice"]
    assert (read_about(folder).user_id, read_key(folder).public) == (PEER.hex(), directory.keys[-1])
    assert key_in(folder) == directory.keys[-1]
    assert not (folder / "store.db").exists()
    assert not (folder / "pending.json").exists()


async def test_a_profile_that_was_made_and_is_not_in_its_place_yet_is_not_lost_to_a_second_try(
    edge: SocketEdge, directory: Directory, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "unlink", kill)
    with pytest.raises(Kill):
        await register(edge, folder, is_replacing=True)
    monkeypatch.undo()
    directory.refusal = reasons.ERROR_REASON_DEPENDENCY_UNAVAILABLE
    with pytest.raises(RefusedError):
        await link(edge, folder, is_replacing=True)

    assert key_in(folder) == directory.keys[0]


@pytest.mark.parametrize("code", ["ABCD2345", "K7QM2XWP"])
async def test_no_number_is_refused_though_a_link_code_is_pending(
    edge: SocketEdge, directory: Directory, tmp_path: Path, code: str
) -> None:
    directory.is_cut = True
    with pytest.raises(NotConnectedError):
        await link(edge, tmp_path / "a", code=code)
    edge.answers[START_VERIFICATION.name] = lambda _: server_frame_pb2.CallError(
        code=3, reason=reasons.ERROR_REASON_INVALID_FIELD, detail="phone_number: must be set"
    )

    with pytest.raises(RefusedError, match="must be set"):
        await chappe_client.register(edge.address, "", name="Alice", profile=tmp_path / "a")


def test_what_is_pending_and_cannot_be_read_is_nothing(folder: Path) -> None:
    before = key_in(folder)
    (folder / "pending.json").write_text("{")

    assert key_in(folder) == before
    assert read_about(folder).device_id == DEVICE
    assert isinstance(read_key(folder), DeviceKey)
