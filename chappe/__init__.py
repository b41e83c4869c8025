"""Chappe, a distributed real-time messenger: its contracts, service kit, client SDK and test kit.

Everything under ``chappe.api`` is generated from ``protos/``; the services live beside this package in
``svc_*`` and meet only through those stubs.
"""

__version__ = "0.1.0"
