"""The rules of the edge: who may sign in, how a log is read, what a call may do, when a session ends."""
