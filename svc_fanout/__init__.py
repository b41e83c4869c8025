"""The carrier: takes accepted messages to the devices that are online, fairly, and wakes the others.

It owns nothing.
svc_message hands it hints; it asks svc_presence for routes, builds one batch per edge, paces, and pushes.
It is a hint machine: it may lose anything, because edges verify every session against the ledger.
It must never be the only holder of a message, and never push to a route of another boot.
"""
