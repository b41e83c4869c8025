"""The Python SDK: a protocol core without I/O, an asyncio front, a durable outbox and a local store."""

from chappe.client.api import Client, connect
from chappe.client.errors import (
    ChappeClientError,
    NotConnectedError,
    ProfileError,
    ProtocolError,
    RefusedError,
    SessionEndedError,
    StoreError,
    UnknownPersonError,
)
from chappe.client.host import ClientParts
from chappe.client.lean import Callbacks, LeanClient, LeanParts
from chappe.client.registration import link, register
from chappe.client.views import (
    AccountChanged,
    Chat,
    Contact,
    Event,
    Message,
    Offline,
    Online,
    Page,
    ProfileChanged,
    ReadOnOtherDevice,
    SendFailed,
    Tick,
    TickChanged,
)

__all__ = [
    "AccountChanged",
    "Callbacks",
    "ChappeClientError",
    "Chat",
    "Client",
    "ClientParts",
    "Contact",
    "Event",
    "LeanClient",
    "LeanParts",
    "Message",
    "NotConnectedError",
    "Offline",
    "Online",
    "Page",
    "ProfileChanged",
    "ProfileError",
    "ProtocolError",
    "ReadOnOtherDevice",
    "RefusedError",
    "SendFailed",
    "SessionEndedError",
    "StoreError",
    "Tick",
    "TickChanged",
    "UnknownPersonError",
    "connect",
    "link",
    "register",
]
