"""The session of a client as a pure state machine: no I/O, no clock; times are handed in as monotonic seconds."""
