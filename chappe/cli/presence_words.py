"""How people are, in the words of people."""

import datetime as dt

from chappe.client.presence_views import PersonPresence, Presence


def in_words(one: PersonPresence, now: dt.datetime) -> str:
    """Returns how somebody is in the words of people; times are those of the zone of `now`."""
    match one.presence:
        case Presence.ONLINE:
            return "online"
        case Presence.HIDDEN:
            return "hidden (it is not for you to see)"
        case Presence.UNKNOWN:
            return "unknown (nobody can say at the moment)"
        case _:
            return last_seen(one.last_seen_ms, now) if one.last_seen_ms else "offline"


def last_seen(last_seen_ms: int, now: dt.datetime) -> str:
    """Returns when somebody was last there: today, yesterday, or on a day."""
    seen = dt.datetime.fromtimestamp(last_seen_ms / 1000, now.tzinfo)
    days = (now.date() - seen.date()).days
    day = {0: "today", 1: "yesterday"}.get(days, f"on {seen:%Y-%m-%d}")
    return f"last seen {day} at {seen:%H:%M}"
