"""What the tests of the SDK share."""

from pathlib import Path

import pytest

from chappe.client.device import DeviceKey
from chappe.client.profiles import About, Profile
from tests.client.model_edge import DEVICE, ME


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns the folder of a profile of alice's, which nothing holds."""
    about = About(user_id=ME.hex(), device_id=DEVICE)
    Profile.create(tmp_path / "alice", about, DeviceKey.generate()).close()
    return tmp_path / "alice"
