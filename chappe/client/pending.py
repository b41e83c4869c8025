"""The key of a device that is about to belong to a user, in a file before the server hears of it.

Whoever asks again with the same key and the same secret gets the same answer: so an answer that was lost, or a process
that was killed, costs nothing, and there is never an account whose key nobody has.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chappe.client.device import DeviceKey
from chappe.client.errors import ProfileError
from chappe.client.private_file import write_private

FILE = "pending.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pending:
    """What a device asks for."""

    key: DeviceKey
    secret: str = ""
    """The registration token in hexadecimal digits, or the link code."""
    phone_number: str = ""
    """Whose token it is; empty for a link code."""
    about: dict[str, Any] | None = None
    """What the profile says of itself, once the server has said yes: from then on this is the profile."""


def read_pending(folder: Path) -> Pending | None:
    """Returns what is pending in the folder of a profile; None when nothing is, or nothing that can be read."""
    try:
        fields = json.loads((folder / FILE).read_text())
        return Pending(
            key=DeviceKey.from_pem(fields["key"].encode()),
            secret=str(fields["secret"]),
            phone_number=str(fields["phone_number"]),
            about=fields["about"],
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ProfileError):
        return None


def write_pending(folder: Path, pending: Pending) -> None:
    """Writes what is pending, in the place of what was.

    Raises:
        OSError: It cannot be written.
    """
    fields = {
        "key": pending.key.to_pem().decode(),
        "secret": pending.secret,
        "phone_number": pending.phone_number,
        "about": pending.about,
    }
    write_private(folder / FILE, json.dumps(fields).encode())
