"""The gRPC doors: wire types to the model and back, who calls, and nothing else."""
