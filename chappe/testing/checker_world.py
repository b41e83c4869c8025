"""Everything heard of so far, by name."""

from collections import defaultdict

from chappe.testing.checker_spans import Group
from chappe.testing.checker_state import Device, Limits, Message, User


class World:
    """All messages, devices, users and groups; who is named exists."""

    def __init__(self, limits: Limits) -> None:
        self.messages: defaultdict[str, Message] = defaultdict(Message)
        self.devices: dict[str, Device] = {}
        self.users: dict[str, User] = {}
        self.groups: dict[str, Group] = {}
        self.read_upto: defaultdict[str, dict[User, str]] = defaultdict(dict)
        """By conversation, up to which message each user has read all."""
        self._limits = limits

    def device(self, name: str) -> Device:
        """Returns the device of this name, new if it was not heard of."""
        found = self.devices.get(name)
        if found is None:
            user = self.user(name.partition("/")[0])
            found = self.devices[name] = Device(name, user)
            user.devices.append(found)
        return found

    def user(self, name: str) -> User:
        """Returns the user of this id, new if not heard of."""
        found = self.users.get(name)
        if found is None:
            found = self.users[name] = User(name)
        return found

    def group(self, name: str) -> Group:
        """Returns the group of this id, new and without members if not heard of."""
        found = self.groups.get(name)
        if found is None:
            found = self.groups[name] = Group(name, self._limits)
        return found

    def original(self, message: Message) -> Message | None:
        """Returns what a message is about, if that was sent."""
        found = self.messages.get(message.target) if message.target else None
        return found if found is not None and found.sender is not None else None
