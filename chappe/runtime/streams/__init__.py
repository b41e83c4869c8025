"""The one stream class, in its two halves: who dials and who serves.

Every hop that a message takes is one long-lived bidirectional stream between two processes. Both halves say hello
first, count credits in items, number their batches, write through one `Batcher`, and read in a task of their own,
always: in grpc.aio a write on a stream that the other side has ended turns the call into INTERNAL and drops what was
not read. The polite end is a drain marker; the dialling side answers it by half-closing, and the serving side answers
what it has and returns. An end without a marker is unclean, and what that means is the owner's business.

Messages are the contract's own: a `oneof frame` with `hello`, `drain` and, towards the sender of items, `credit`.
"""

from chappe.runtime.streams.client import StreamClient
from chappe.runtime.streams.protocol import (
    PROTOCOL,
    CreditExceededError,
    DialHandler,
    Identity,
    ServeHandler,
    StreamBrokenError,
    check_hello,
)
from chappe.runtime.streams.server import StreamServer

__all__ = [
    "PROTOCOL",
    "CreditExceededError",
    "DialHandler",
    "Identity",
    "ServeHandler",
    "StreamBrokenError",
    "StreamClient",
    "StreamServer",
    "check_hello",
]
