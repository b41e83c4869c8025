"""The gRPC door of the registry: wire types to model and back, caller identity, nothing else."""

from svc_presence.rpc.presence import PresenceRpc

__all__ = ["PresenceRpc"]
