"""Looks whether a port is free, by taking it."""

import socket


def bound(port: int, host: str = "127.0.0.1") -> socket.socket | None:
    """Takes a port and holds it until the socket is closed; None if somebody has it."""
    candidate = socket.socket()
    # A port on which old connections linger is free; one on which somebody listens is not.
    candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        candidate.bind((host, port))
        candidate.listen(1)
    except OSError:
        candidate.close()
        return None
    return candidate


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Says whether nobody listens on a port, at this moment."""
    candidate = bound(port, host)
    if candidate is not None:
        candidate.close()
    return candidate is not None
