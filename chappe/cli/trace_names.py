"""How the people of a trace are called, as far as a profile on this machine knows them."""

from pathlib import Path

from chappe.client.errors import ChappeClientError
from chappe.client.profiles import read_about, store_path
from chappe.client.store_sqlite import SqliteStore

_SHORT = 8


def known_names(folder: Path) -> dict[str, str]:
    """Returns names by user id in hexadecimal digits; none without a profile in the folder."""
    try:
        about = read_about(folder)
        if not store_path(folder).exists():
            return {about.user_id: about.name}
        store = SqliteStore(store_path(folder), bytes.fromhex(about.user_id), about.device_id, may_migrate=False)
        people = store.people()
        store.close()
    except ChappeClientError:
        return {}
    called = {one.user_id.hex(): one.contact_name or one.profile_name or one.phone_number for one in people}
    return {user_id: name for user_id, name in (called | {about.user_id: about.name}).items() if name}


def with_names(text: str, names: dict[str, str]) -> str:
    """Returns a text in which whoever has a name is called by it, with the beginning of the id."""
    for user_id, name in names.items():
        text = text.replace(user_id, f"{name} ({user_id[:_SHORT]})")
    return text
