"""The rules of the ledger, by verb: accept sends, record receipts, sync inboxes, read history."""
