"""The Python SDK: a protocol core without I/O, an asyncio front, a durable outbox and a local store."""
