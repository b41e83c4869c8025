"""A group of a scene: who is in it, told to the directory and written into its owner's history."""

from tests.mutations.directory import Directory
from tests.mutations.phone import Phone


class Circle:
    """One group; every change takes no time."""

    def __init__(self, directory: Directory, *phones: Phone) -> None:
        """Makes a group of people; the first owns it."""
        self.members = list(phones)
        self.version = 1
        self._directory = directory
        self._owner = phones[0]
        self.group_id = directory.found(*(phone.user_id for phone in phones))
        self._note("join", *phones)

    def add(self, phone: Phone) -> None:
        """Makes somebody a member."""
        self.version = self._directory.add(self.group_id, phone.user_id)
        self.members.append(phone)
        self._note("join", phone)

    def remove(self, phone: Phone) -> None:
        """Ends a membership."""
        self.version = self._directory.remove(self.group_id, phone.user_id)
        self.members.remove(phone)
        self._note("leave", phone)

    def _note(self, op: str, *phones: Phone) -> None:
        members = [phone.user_id.hex() for phone in phones]
        self._owner.history.note(op, conv=self.group_id.hex(), members=members, version=self.version)
