"""The `sweep-agent` process: takes a run, launches it, watches it, reports how it ended."""
