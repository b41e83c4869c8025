"""The four services behind the edge, over gRPC."""
