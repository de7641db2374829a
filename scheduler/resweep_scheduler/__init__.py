"""Sweeps: config, store (Redis and Lua), search, stopping, service and the `resweep` command."""
