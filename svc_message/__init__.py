"""The ledger: accepts messages and answers every question about what was said.

It accepts a message only when it is durable, writes it into the inbox of everyone entitled to it
(groups through its journal), keeps the receipts, and serves history, sync and the chat list.
It owns the ledger's store (Cassandra, or the embedded PostgreSQL) and mints every position.
svc_edge submits and reads through it, svc_identity appends its events; it sends hints to svc_fanout.
It must never acknowledge what is not yet stored, never look inside content, and never rely on a hint.
"""
