"""The kit that every service is built on: configuration, doors, tasks, telemetry, identity and engines."""
