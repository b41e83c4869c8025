"""Fetches the jars of Cassandra with Maven, once, and takes none that is not in the committed list of sums."""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Final

from chappe.runtime.engines.folders import private_folder
from chappe.runtime.engines.process import EngineError

VERSION: Final = "5.0.8"
_HERE: Final = Path(__file__).parent
_POM: Final = _HERE / "pom.xml"
_LOCK: Final = _HERE / "jars.sha256"
_MB: Final = 1_000_000
# What Maven asks for on its way, itself included.
_TOTAL_FILES: Final = 575
_TOTAL_MB: Final = 83
_REPORT_EVERY_S: Final = 5.0
# Pinned like the jars; what it brings is checked, whatever it is.
_GOAL: Final = "org.apache.maven.plugins:maven-dependency-plugin:2.8:copy-dependencies"


async def fetch_jars(cache: Path, report: Callable[[str], None]) -> tuple[Path, ...]:
    """Returns the jars, sorted by name; fetches what is not in the cache yet.

    Processes that do it at once take turns.

    Args:
        cache: a folder of this user that is kept.
        report: told how far the download is.

    Raises:
        EngineError: if Maven is missing or fails, or a jar is not the one of the list.
    """
    async with _turn(private_folder(cache) / "fetch.lock"):
        folder = cache / f"cassandra-{VERSION}-{_recipe()[:12]}"
        if not folder.is_dir():
            await _fetch(folder, report)
    return tuple(sorted(folder.glob("*.jar")))


def check_jars(folder: Path, lock: str) -> None:
    """Returns when a folder holds exactly the jars of a list as `sha256sum` writes it.

    Raises:
        EngineError: naming the jars that differ, are missing or are too many.
    """
    wanted = {name: digest for digest, name in (line.split() for line in lock.splitlines())}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.jar")}
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if wrong:
        raise EngineError(
            f"the jars of Cassandra {VERSION} in {folder} are not those of {_LOCK.name}: {', '.join(wrong)}; "
            "remove the folder and try again, and look at your Maven mirror if it happens again"
        )


def _recipe() -> str:
    """Names what the jars are made from: another recipe has another folder."""
    return hashlib.sha256(_POM.read_bytes() + _LOCK.read_bytes()).hexdigest()


async def _fetch(folder: Path, report: Callable[[str], None]) -> None:
    """Fetches into a draft that becomes the folder only when it is whole, so that no marker can lie."""
    draft = folder.with_name(f"{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    report(f"fetching Cassandra {VERSION} with Maven, about {_TOTAL_MB} MB, this once")
    async with _told(draft, report):
        await _copy_dependencies(draft)
    await asyncio.to_thread(check_jars, draft / "jars", _LOCK.read_text(encoding="utf-8"))
    (draft / "jars").rename(folder)
    shutil.rmtree(draft)


async def _copy_dependencies(draft: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise EngineError(f"Maven is missing, which fetches Cassandra {VERSION}; run: apt install maven")
    running = await asyncio.create_subprocess_exec(
        *(maven, "-B", "-ntp", "-q", f"-Dmaven.repo.local={draft / 'repository'}", "-f", str(_POM), _GOAL),
        *("-DincludeScope=runtime", f"-DoutputDirectory={draft / 'jars'}"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        output, _ = await running.communicate()
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()
    if running.returncode != 0:
        tail = "\n".join(f"  {line}" for line in output.decode(errors="replace").splitlines()[-12:])
        raise EngineError(f"Maven could not fetch Cassandra {VERSION}:\n{tail}\nMend what it names and try again.")


@contextlib.asynccontextmanager
async def _told(draft: Path, report: Callable[[str], None]) -> AsyncGenerator[None]:
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def tell() -> None:
        nonlocal timer
        sizes = [_size(path) for path in (draft / "repository").rglob("*.[jp][ao][rm]")]
        report(f"{len(sizes)} of about {_TOTAL_FILES} files, {sum(sizes) // _MB} MB")
        timer = loop.call_later(_REPORT_EVERY_S, tell)

    timer = loop.call_later(_REPORT_EVERY_S, tell)
    try:
        yield
    finally:
        timer.cancel()


def _size(path: Path) -> int:
    # Maven renames its files while they are counted.
    try:
        return path.stat().st_size
    except OSError:
        return 0


@contextlib.asynccontextmanager
async def _turn(path: Path) -> AsyncGenerator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        await asyncio.to_thread(fcntl.flock, descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
