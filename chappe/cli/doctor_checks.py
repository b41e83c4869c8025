"""What `chappe doctor` looks at: each check is one question with one answer and, when it is bad, what to do."""

import asyncio
import datetime as dt
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

from cryptography import x509

from chappe.cli.launcher.environment import CERTIFICATES, TOOL, tls_files
from chappe.cli.launcher.foundation import ledger_in_cassandra
from chappe.cli.launcher.health import trouble
from chappe.cli.launcher.plan import LaunchError
from chappe.cli.service_command import run_command

STATE_FILE: Final = "up.json"
"""In the data folder while the system is up: what `chappe up --json` prints, and the engines' addresses."""

_LEAST_FREE_BYTES: Final = 1 << 30
_PACKAGES: Final = (
    *("chappe", "grpcio", "protobuf", "cryptography", "picows", "psycopg", "cassandra-driver", "redis", "uvloop"),
)
_CLOCK: Final = "clock"
"""What svc_message calls its clock in its health."""
_MOST_SKEW_MS: Final = 5_000
_LEAST_CERTIFICATE_LIFE: Final = dt.timedelta(hours=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """The answer to one question."""

    check: str
    """What was looked at."""
    state: Literal["ok", "warning", "failed"]
    """How it is."""
    text: str
    """What was found."""
    advice: str = ""
    """What to do, unless it is well."""

    def json(self) -> str:
        """Returns the finding as one line of JSON."""
        return json.dumps(asdict(self))


class Patient:
    """What a data folder says of the system that runs in it."""

    def __init__(self, data: Path) -> None:
        """Reads the state file; `state` is empty when nothing is up.

        Args:
            data: The data folder of `chappe up`.
        """
        self.data = data
        self.pki = data / "pki"
        self.state: dict[str, Any] = {}
        try:
            found = json.loads((data / STATE_FILE).read_text(encoding="utf-8"))
            # A launcher that was killed leaves the file behind.
            os.kill(found["pids"]["launcher"][0], 0)
            self.state = found
        except (OSError, ValueError, LookupError):
            pass


async def examine(patient: Patient, looked_in: str) -> AsyncIterator[Finding]:
    """Yields the finding of every check, the quick ones first.

    Args:
        patient: What is looked at.
        looked_in: Where it was looked for, in words.
    """
    yield _versions()
    for finding in (*_disk(patient.data), *_certificates(patient.pki), *_launcher(patient, looked_in)):
        yield finding
    for name, address in patient.state.get("engines", {}).items():
        yield await (_ledger(patient, address) if name == "cassandra" else _engine(name, address))
    for service, addresses in patient.state.get("grpc", {}).items():
        for number, address in enumerate(addresses):
            yield await _service(patient, f"{service}-{number}", service, address)
    for address in patient.state.get("ws", []):
        yield await _clock(address)


def _versions() -> Finding:
    found = [f"Python {sys.version.split()[0]}"]
    missing: list[str] = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        text = f"{', '.join(missing)} not installed: `chappe up` needs them, a client does not"
        return Finding(check="versions", state="warning", text=text, advice="make setup")
    return Finding(check="versions", state="ok", text=", ".join(found))


def _disk(data: Path) -> Iterator[Finding]:
    place = next(folder for folder in (data, *data.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    text = f"{free >> 20:,} MiB free for {data}"
    if free < _LEAST_FREE_BYTES:
        yield Finding(check="disk", state="warning", text=text, advice="make room: the engines stop when it is full")
    else:
        yield Finding(check="disk", state="ok", text=text)


def _certificates(pki: Path) -> Iterator[Finding]:
    if not pki.exists():
        yield Finding(check="certificates", state="warning", text=f"none in {pki}", advice="`chappe up` makes them")
        return
    lives: dict[str, dt.timedelta] = {}
    for name in ("ca", *CERTIFICATES):
        path = pki / f"{name}.crt"
        try:
            expiry = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
        except (OSError, ValueError) as error:
            advice = "start `chappe up` again: it makes new ones"
            yield Finding(check="certificates", state="failed", text=f"{path}: {error}", advice=advice)
            return
        lives[name] = expiry - dt.datetime.now(dt.UTC)
    name, life = min(lives.items(), key=lambda item: item[1])
    text = f"{len(lives)} in {pki}; the first to end is {name}, in {life.total_seconds() / 3600:.1f} h"
    if life < _LEAST_CERTIFICATE_LIFE:
        yield Finding(check="certificates", state="failed", text=text, advice="start `chappe up` again")
    else:
        yield Finding(check="certificates", state="ok", text=text)


def _launcher(patient: Patient, looked_in: str) -> Iterator[Finding]:
    if not patient.state:
        text = f"no `chappe up` runs in {looked_in}"
        advice = "start it: make run; or name its folder: chappe doctor --data FOLDER"
        yield Finding(check="launcher", state="failed", text=text, advice=advice)
    else:
        yield Finding(check="launcher", state="ok", text=f"process {patient.state['pids']['launcher'][0]}")


async def _engine(name: str, address: str) -> Finding:
    try:
        text = await (_ask_postgres(address) if name == "postgres" else _ask_valkey(address))
    except Exception as error:  # noqa: BLE001 - whatever a driver raises is the finding
        advice = "`chappe up` starts it again by itself; if not, its log is in the data folder"
        # Drivers write several lines; a finding is one.
        text = " ".join(str(error).split()) or type(error).__name__
        return Finding(check=name, state="failed", text=text, advice=advice)
    return Finding(check=name, state="ok", text=text)


async def _ask_postgres(dsn: str) -> str:
    import psycopg

    async with await psycopg.AsyncConnection.connect(dsn, connect_timeout=5) as connection:
        row = await (await connection.execute("SHOW server_version")).fetchone()
    return f"PostgreSQL {row[0] if row else '?'} answers"


async def _ask_valkey(url: str) -> str:
    from redis.asyncio import Redis

    async with asyncio.timeout(5), Redis.from_url(url) as client:
        about: dict[str, Any] = await client.info("server")
    return f"Valkey {about.get('valkey_version', about.get('redis_version', '?'))} answers"


async def _ledger(patient: Patient, address: str) -> Finding:
    """Lets svc_message look at the Cassandra of the ledger as it does when it starts."""
    try:
        done = await run_command("message", ["check"], _settings(patient, address))
    except (LaunchError, TimeoutError) as error:
        text = str(error) or f"{address} did not answer in time"
        return Finding(check="cassandra", state="failed", text=text, advice=_log_of(patient, "cassandra"))
    if done.code:
        # Before it the driver may have told what it tried.
        text = done.errors.rpartition("svc_message check: ")[2]
        return Finding(check="cassandra", state="failed", text=text, advice=_log_of(patient, "cassandra"))
    return Finding(check="cassandra", state="ok", text=done.output.strip())


def _settings(patient: Patient, address: str) -> dict[str, str]:
    """Returns what a command of svc_message is told of the system that runs."""
    found = {
        **ledger_in_cassandra(address, patient.data / "cassandra" / "password"),
        "IDENTITY_TARGET": ",".join(patient.state["grpc"]["identity"]),
        "FANOUT_TARGET": ",".join(patient.state["grpc"]["fanout"]),
    }
    return {f"CHAPPE_MESSAGE_{name}": value for name, value in found.items()}


def _log_of(patient: Patient, engine: str) -> str:
    log = patient.data / engine / f"{engine}.log"
    return f"`chappe up` starts it again by itself, and migrates when it starts; if not, its log says why: {log}"


async def _service(patient: Patient, name: str, service: str, address: str) -> Finding:
    check = f"svc_{name}"
    if why := await trouble(service, address, tls_files(patient.pki, TOOL)):
        advice = f"its log says why: {patient.data / 'logs' / f'{check}.log'}"
        if _CLOCK in why.removeprefix("failing: ").split(", "):
            advice = f"let its machine and its store's follow the same time servers (chronyc tracking); {advice}"
        return Finding(check=check, state="failed", text=why, advice=advice)
    return Finding(check=check, state="ok", text=f"serves on {address}")


async def _clock(address: str) -> Finding:
    """Asks an edge for its time, as a client without a user."""
    from chappe.client.door import Door
    from chappe.client.errors import ChappeClientError
    from chappe.client.seams import system_seams

    seams = system_seams()
    try:
        async with Door(address, seams) as door:
            await door.welcomed()
            ahead_ms = door.clock.estimate_ms(seams.clock.monotonic_s()) - seams.clock.wall_ms()
    except ChappeClientError as error:
        advice = "look whether svc_edge serves, above"
        return Finding(check="clock", state="failed", text=f"{address}: {error}", advice=advice)
    text = f"{address} is {abs(ahead_ms)} ms {'ahead of' if ahead_ms >= 0 else 'behind'} this machine"
    if abs(ahead_ms) > _MOST_SKEW_MS:
        advice = "set the clocks right, by NTP; clients correct small differences by themselves"
        return Finding(check="clock", state="warning", text=text, advice=advice)
    return Finding(check="clock", state="ok", text=text)
