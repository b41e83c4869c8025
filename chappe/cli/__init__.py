"""The `chappe` command: starts the whole system, chats from a terminal, traces, examines and measures."""
