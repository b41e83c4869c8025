"""The bridge: joins client WebSockets to the bidirectional streams between services.

It holds sockets, flow control, cursors and resume, and owns no store.
Clients connect to it; it speaks for the user that it authenticated, and decides nothing.
It submits to svc_message, tracks in svc_presence, forwards unary calls as opaque bytes, and takes pushes
from svc_fanout.
It must never open an envelope, never compute a position, and never deliver to a session of another user.
"""
