"""The embedded server and background work."""
