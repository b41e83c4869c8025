"""What the local store knows of how chats are kept."""

from chappe.api.edge.v1 import item_pb2
from chappe.client.altering import Altering
from chappe.client.store_file import StoreFile


class SettingShelf:
    """Settings in a store on SQLite."""

    def __init__(self, file: StoreFile, altering: Altering) -> None:
        self._file = file
        self._altering = altering

    def expiry_s(self, conversation_id: bytes) -> int:
        """Returns the timer of a conversation; zero when it has none."""
        with self._file.guard("read"):
            found = self._file.db.execute(
                "SELECT expiry_s FROM conversations WHERE conversation_id = ?", (conversation_id,)
            ).fetchone()
        return found[0] if found else 0

    def keep(self, event: item_pb2.ConversationSettingEvent, position: bytes) -> None:
        """Takes a change whose event is still on its way, and will come at this position."""
        if not position:
            return
        # As of a place just before: the event itself counts as news then.
        before = (int.from_bytes(position, "big") - 1).to_bytes(len(position), "big")
        with self._file.guard("written"), self._file.transaction():
            self._altering.apply(item_pb2.Item(position=before, conversation_setting=event), [])
