"""The `resweep` command."""
