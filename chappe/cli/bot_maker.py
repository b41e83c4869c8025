"""Makes a bot in the system that runs: its user by the command of svc_identity, its certificate by its CA."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from chappe.cli.doctor_checks import Patient
from chappe.cli.launcher.environment import TOOL
from chappe.cli.launcher.foundation import IDENTITY
from chappe.cli.launcher.plan import LaunchError
from chappe.cli.service_command import Done, run_command
from chappe.runtime.engines import databases
from chappe.runtime.pki import TRUST_DOMAIN, DevelopmentCa, spiffe_id

_SERVICE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class Bot(NamedTuple):
    """A user as which a service speaks, and with what."""

    user_id: str
    device_id: int
    spiffe_id: str
    cert: str
    key: str
    ca: str
    target: str
    """Where svc_message is."""


def make_bot(data: Path, name: str, service: str | None) -> Bot:
    """Makes a bot, or finds the one that is there, and issues its certificate.

    Args:
        data: The data folder of the running system.
        name: What others see.
        service: The name in the certificate; None to make one of the bot's.

    Raises:
        ClickException: Nothing runs there, or svc_identity refused.
    """
    patient = Patient(data)
    if not patient.state:
        raise click.ClickException(f"no `chappe up` runs in {data}; start it, or name its folder: --data FOLDER")
    chosen = service or re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "bot"
    if not _SERVICE.fullmatch(chosen) or chosen.startswith("svc-"):
        raise click.ClickException(f"{chosen!r} is no name for a service; use a-z, 0-9 and -, and not svc-: --id NAME")
    if chosen in {"ca", TOOL}:
        # The files of the authority, and the certificate that every script of this machine shows.
        raise click.ClickException(
            f"{chosen!r} is the name of other certificates in {patient.pki}; choose one: --id NAME"
        )
    identity = spiffe_id(TRUST_DOMAIN, chosen)
    made = _create(patient, name, identity)
    files = DevelopmentCa.open(patient.pki).issue(chosen, identity, dns_names=(chosen, "localhost"))
    return Bot(
        user_id=made["user_id"],
        device_id=made["device_id"],
        spiffe_id=identity,
        cert=str(files.cert),
        key=str(files.key),
        ca=str(files.ca),
        target=",".join(patient.state["grpc"]["message"]),
    )


def _create(patient: Patient, name: str, identity: str) -> dict[str, Any]:
    """Runs the command of svc_identity with what its process in this system was told."""
    command = ["bot", "create", "--name", name, "--spiffe-id", identity, "--json"]
    try:
        done = asyncio.run(_run(patient, command))
    except (LaunchError, TimeoutError) as error:
        raise click.ClickException(str(error) or "svc_identity did not answer in time") from error
    if done.code:
        raise click.ClickException(done.errors or f"svc_identity ended with {done.code}")
    found: dict[str, Any] = json.loads(done.output)
    return found


async def _run(patient: Patient, command: list[str]) -> Done:
    return await run_command("identity", command, await _settings(patient))


async def _settings(patient: Patient) -> dict[str, str]:
    """Returns what the command has to be told of the system that runs."""
    dsns = await databases(patient.state["engines"]["postgres"], [IDENTITY])
    return {
        "CHAPPE_IDENTITY_STORE_DSN": dsns[IDENTITY],
        "CHAPPE_IDENTITY_PEPPER_FILE": str(patient.data / "secrets" / "pepper"),
        "CHAPPE_IDENTITY_MESSAGE_TARGET": ",".join(patient.state["grpc"]["message"]),
    }
