"""How moments look."""

import datetime as dt


def moment(ms: int) -> str:
    """Returns a Unix time in milliseconds as local date and time."""
    return dt.datetime.fromtimestamp(ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")
