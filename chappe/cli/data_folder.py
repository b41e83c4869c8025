"""Where the system is that runs on this machine, for commands that were not told."""

from pathlib import Path
from typing import NamedTuple

from chappe.cli.doctor_checks import Patient
from chappe.cli.up import DEFAULT_DATA


class Found(NamedTuple):
    """A data folder of `chappe up`."""

    patient: Patient
    looked_in: str
    """Where it was looked for, in words."""


def find_system(given: Path | None, home: Path) -> Found:
    """Returns the system in a folder; without one, one that runs, or else what lies here.

    Args:
        given: The data folder that the user names.
        home: The folder of all profiles, where `chappe up` may have been started, too.
    """
    if given is not None:
        return Found(Patient(given.absolute()), str(given.absolute()))
    here = Path.cwd()
    places = [folder / DEFAULT_DATA for folder in (here, *here.parents)]
    looked_in = f"{places[0]}, in {DEFAULT_DATA} of a folder above, or in {home}"
    running = (patient for place in (*places, home) if (patient := Patient(place)).state)
    return Found(next(running, Patient(places[0])), looked_in)
