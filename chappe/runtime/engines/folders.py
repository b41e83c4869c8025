"""Chooses where an engine's files and its socket live, and keeps other users out of them."""

import hashlib
import os
import secrets
import stat
import tempfile
from pathlib import Path

from chappe.runtime.engines.binaries import is_reachable
from chappe.runtime.engines.process import EngineError

_SOCKET_PATH_BYTES = 100
"""Kernels cut socket paths at 104 (macOS) or 108 bytes, the terminating zero and a margin included."""


def private_folder(path: Path, uid: int | None = None) -> Path:
    """Makes a folder that only its owner may enter, parents included; keeps one that exists.

    Raises:
        EngineError: if it cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if uid is not None:
            os.chown(path, uid, uid)
    except OSError as error:
        raise EngineError(
            f"cannot make the folder {path} ({error}); give a data folder that this user may write"
        ) from error
    return path.resolve()


def socket_folder(folder: Path, name: str, uid: int | None) -> Path:
    """Makes the folder of a socket: ``run`` beside the data, or a short one where temporary files live.

    The same data folder always gets the same path, so clients find the engine again after a restart.
    Whoever can open the socket is the engine's administrator: the folder is private to the engine's user.

    Args:
        folder: the engine's data folder, resolved.
        name: the socket's file name.
        uid: the engine's user; ``None`` is whoever runs this process.

    Raises:
        EngineError: if another user has taken the path, or none is short enough.
    """
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    short = f"chappe-{os.geteuid()}-{digest}"
    choices = (folder / "run", Path(tempfile.gettempdir()) / short, Path("/tmp") / short)  # noqa: S108 - checked
    for choice in choices:
        if len(os.fsencode(choice / name)) <= _SOCKET_PATH_BYTES and is_reachable(choice, uid):
            choice.mkdir(mode=0o700, exist_ok=True)
            _refuse_stranger(choice, uid)
            if uid is not None:
                os.chown(choice, uid, uid, follow_symlinks=False)
            return choice
    raise EngineError(f"no short enough folder for the socket {name}; set TMPDIR to a short path, for example /tmp")


def password_of(folder: Path) -> str:
    """Reads the password for the TCP port, made at first use and kept in a file that only its owner reads."""
    return kept_token(folder, "password")


def kept_token(folder: Path, name: str) -> str:
    """Reads a random word that nobody can guess, made at first use and kept in a file that only its owner reads."""
    path = folder / name
    if not path.exists():
        draft = folder / f"{name}.draft"
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(24))
        draft.rename(path)
    return path.read_text(encoding="utf-8")


def _refuse_stranger(folder: Path, uid: int | None) -> None:
    found = folder.lstat()
    is_ours = found.st_uid in {os.geteuid(), uid}
    if not stat.S_ISDIR(found.st_mode) or not is_ours or stat.S_IMODE(found.st_mode) & 0o077:
        raise EngineError(f"{folder} is not a private folder of this user; remove it and look who made it")
