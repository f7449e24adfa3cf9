"""The `live` commands: the only place that knows the clock, the environment and exit codes."""
