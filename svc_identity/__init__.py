"""The directory: knows who people are, what they allow, their devices and keys, and their groups.

It owns PostgreSQL: accounts, sessions, devices, profiles, contacts, blocks, groups and public keys.
Clients call it through the bridge of svc_edge; the other services read it and watch its changes.
Its changes reach inboxes through svc_message, and only then does it move its mark.
It must never see a private key, never answer more than an audience allows, and never touch Redis.
"""
