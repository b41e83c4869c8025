"""Profiles: a folder for each person on this machine, with the device's key, what it is, and its local store.

`key.pem` (the credential; never leaves the machine), `profile.json` (who and where; written last, so that a folder
without it is no profile), `token.json` (an access token for a quarter of an hour), `store.db` (messages and outbox).
`pending.json` is there while a profile is being made; when it says who the device is, it is the profile, and whoever
holds the folder next puts the rest in its place.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Self

from chappe.client.device import Device, DeviceKey
from chappe.client.errors import ProfileError, ProfileInUseError
from chappe.client.pending import FILE as _PENDING
from chappe.client.pending import Pending, read_pending, write_pending
from chappe.client.private_file import write_private
from chappe.client.tokens import Token

_KEY = "key.pem"
_ABOUT = "profile.json"
_TOKEN = "token.json"  # noqa: S105 - the name of a file
_STORE = "store.db"
_LOCK = "lock"
_MOST_DIGITS = 20


def default_root() -> Path:
    """Returns where profiles are kept unless a path is given: below the folder that CHAPPE_HOME names, or ~/.chappe."""
    return Path(os.environ.get("CHAPPE_HOME") or Path.home() / ".chappe") / "profiles"


def folder_of(profile: str | Path) -> Path:
    """Returns the folder of a profile: a path as it is, a plain name below the default root.

    Raises:
        ProfileError: The name is empty or hides a path.
    """
    if isinstance(profile, Path):
        return profile
    if not profile or profile.startswith(".") or "/" in profile or "\\" in profile:
        raise ProfileError(f"{profile!r} is no name for a profile; use letters and digits, or give a Path")
    return default_root() / profile


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What a profile says of itself."""

    user_id: str
    device_id: int
    phone_number: str = ""
    name: str = ""
    addresses: tuple[str, ...] = ()
    """The edges that it was registered with."""


class Profile:
    """A profile that this process holds; others can only follow it until it is closed."""

    def __init__(self, folder: Path, about: About, key: DeviceKey, lock: IO[str]) -> None:
        self.folder = folder
        self.about = about
        self.device = Device(bytes.fromhex(about.user_id), about.device_id, key)
        self._lock = lock

    @classmethod
    def open(cls, profile: str | Path) -> Self:
        """Opens a profile and holds it.

        Raises:
            ProfileError: There is none, or it is damaged.
            ProfileInUseError: Another process holds it.
        """
        folder = folder_of(profile)
        read_about(folder)
        lock = _hold(folder)
        try:
            _put_in_place(folder)
            about, key = read_about(folder), read_key(folder)
        except ProfileError:
            lock.close()
            raise
        return cls(folder, about, key, lock)

    @classmethod
    def create(cls, profile: str | Path, about: About, key: DeviceKey) -> Self:
        """Makes a profile for a new device, in place of what was there, and holds it.

        Raises:
            ProfileError: The folder cannot be written.
            ProfileInUseError: Another process holds it.
        """
        draft = Draft.hold(profile)
        try:
            draft.become(about, key)
        except ProfileError:
            draft.close()
            raise
        return cls(draft.folder, about, key, draft.lock)

    def token(self) -> Token | None:
        """Returns the access token that was kept, if there is one."""
        try:
            fields = json.loads((self.folder / _TOKEN).read_text())
            return Token(str(fields["access_token"]), int(fields["expire_ms"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep_token(self, token: Token | None) -> None:
        """Keeps an access token for the next process, or forgets it; a full disk costs a sign-in and nothing else."""
        with contextlib.suppress(OSError):
            if token is None:
                (self.folder / _TOKEN).unlink(missing_ok=True)
            else:
                write_private(self.folder / _TOKEN, json.dumps(token._asdict()).encode())

    def close(self) -> None:
        """Lets another process hold the profile."""
        self._lock.close()


class Draft:
    """A profile that is being made, in a folder that this process holds until it is closed.

    What stood there before stays until the new one takes its place, all at once.
    """

    def __init__(self, folder: Path, lock: IO[str]) -> None:
        self.folder = folder
        self.lock = lock

    @classmethod
    def hold(cls, profile: str | Path) -> Self:
        """Holds the folder of a profile, and makes it if there is none.

        Raises:
            ProfileError: The folder cannot be written.
            ProfileInUseError: Another process holds it.
        """
        folder = folder_of(profile)
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = _hold(folder)
        try:
            _put_in_place(folder)
        except ProfileError:
            lock.close()
            raise
        return cls(folder, lock)

    @property
    def pending(self) -> Pending | None:
        """What an earlier process asked for in vain."""
        return read_pending(self.folder)

    def keep(self, asked: Pending) -> None:
        """Keeps what is asked for, on the disk.

        Raises:
            ProfileError: The folder cannot be written.
        """
        with _writing(self.folder):
            write_pending(self.folder, asked)

    def become(self, about: About, key: DeviceKey) -> None:
        """Makes this the profile, in place of what was there.

        Raises:
            ProfileError: The folder cannot be written.
        """
        self.keep(Pending(key=key, about=asdict(about)))
        _put_in_place(self.folder)

    def close(self) -> None:
        """Lets another process hold the folder."""
        self.lock.close()


def read_about(folder: Path) -> About:
    """Returns what the profile in a folder says of itself; needs no hold of it.

    Raises:
        ProfileError: There is none, or it is damaged.
    """
    made = _made(folder)
    if made is None and not (folder / _ABOUT).exists():
        raise ProfileError(f"there is no profile in {folder}; register or link it first")
    try:
        fields = json.loads((folder / _ABOUT).read_text()) if made is None else made.about or {}
        return About(
            user_id=bytes.fromhex(fields["user_id"]).hex(),
            device_id=int(fields["device_id"]),
            phone_number=str(fields.get("phone_number", "")),
            name=str(fields.get("name", "")),
            addresses=tuple(str(address) for address in fields.get("addresses", ())),
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _damaged(folder, error) from error


def store_path(folder: Path) -> Path:
    """Returns the file of the local store of the profile in a folder."""
    return folder / _STORE


def read_key(folder: Path) -> DeviceKey:
    """Returns the key of the profile in a folder; needs no hold of it.

    Raises:
        ProfileError: It is damaged.
    """
    made = _made(folder)
    try:
        return DeviceKey.from_pem((folder / _KEY).read_bytes()) if made is None else made.key
    except OSError as error:
        raise _damaged(folder, error) from error


def _damaged(folder: Path, error: Exception) -> ProfileError:
    return ProfileError(f"the profile in {folder} is damaged ({error}); restore it or register again")


def profiles(root: Path | None = None) -> list[str]:
    """Returns the names of the profiles on this machine, sorted."""
    folder = root or default_root()
    return sorted(path.name for path in folder.glob("*") if exists(path))


def exists(profile: str | Path) -> bool:
    """Tells whether there is such a profile."""
    folder = folder_of(profile)
    return (folder / _ABOUT).exists() or _made(folder) is not None


def _made(folder: Path) -> Pending | None:
    """Returns a profile that was made and is not in its place yet."""
    found = read_pending(folder)
    return None if found is None or found.about is None else found


def _put_in_place(folder: Path) -> None:
    """Takes away what was there before a profile that was made; may be repeated from any point."""
    made = _made(folder)
    if made is None:
        return
    with _writing(folder):
        for name in (_TOKEN, _STORE, f"{_STORE}-wal", f"{_STORE}-shm"):
            (folder / name).unlink(missing_ok=True)
        write_private(folder / _KEY, made.key.to_pem())
        write_private(folder / _ABOUT, json.dumps(made.about, indent=2).encode())
        (folder / _PENDING).unlink()


@contextlib.contextmanager
def _writing(folder: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise ProfileError(f"the profile in {folder} cannot be written: {error}") from error


def _hold(folder: Path) -> IO[str]:
    try:
        lock = (folder / _LOCK).open("a+")
    except OSError as error:
        raise ProfileError(f"the profile in {folder} cannot be opened: {error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        holder = lock.read(_MOST_DIGITS).strip()
        lock.close()
        raise ProfileInUseError(
            f"the profile in {folder} is in use by another process{f' ({holder})' if holder else ''}; end that one, or "
            "link a second device"
        ) from error
    try:
        # Only for people: what counts is the lock, which the kernel takes away with the process. Nothing of it stays
        # in the buffer of the file, which could not be closed then.
        os.ftruncate(lock.fileno(), 0)
        os.write(lock.fileno(), f"{os.getpid()}\n".encode())
    except OSError as error:
        lock.close()
        raise ProfileError(f"the profile in {folder} cannot be held: {error}; is the disk full?") from error
    return lock
