"""The part of the local store that knows whether the address book was changed elsewhere: on a device, by a process."""

from chappe.api.edge.v1 import item_pb2
from chappe.client.rebuilds import RESYNCED
from chappe.client.store import ContactNews
from chappe.client.store_file import StoreFile

_BYTES = 8
_READ_AFTER = "contacts_resynced"
"""Under this key the store keeps after how many Resyncs the address book was read."""
_RAISE = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = max(value, excluded.value)"


class ContactShelf:
    """Counts the versions of the address book that were heard of and read, and the changes of what is remembered."""

    def __init__(self, file: StoreFile) -> None:
        self._file = file

    def unread(self) -> ContactNews | None:
        """Returns what this device has heard of and not read; None when it has read the newest."""
        with self._file.guard("read"):
            heard = ContactNews(self._version("contacts_heard"), self._version(RESYNCED))
            is_read = heard.version <= self._version("contacts_read") and heard.resyncs <= self._version(_READ_AFTER)
        return None if is_read else heard

    def mark_read(self, news: ContactNews) -> None:
        """Takes note that the address book was read after this was heard."""
        with self._file.guard("written"), self._file.transaction():
            self._put("contacts_read", news.version)
            self._put(_READ_AFTER, news.resyncs)

    def changes(self) -> int:
        """Returns how often something was remembered of people, by whichever process of the profile."""
        with self._file.guard("read"):
            return self._version("people")

    def change(self) -> None:
        """Takes note, inside a transaction of the store, that something was remembered of people."""
        self._put("people", self._version("people") + 1)

    def hear(self, account: item_pb2.AccountEvent) -> None:
        """Takes note, inside a transaction of the store, of a change of the account."""
        if account.change == item_pb2.ACCOUNT_CHANGE_CONTACTS:
            self._put("contacts_heard", account.version)

    def _version(self, key: str) -> int:
        row = self._file.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return 0 if row is None else int.from_bytes(row[0], "big")

    def _put(self, key: str, version: int) -> None:
        self._file.db.execute(_RAISE, (key, version.to_bytes(_BYTES, "big")))
