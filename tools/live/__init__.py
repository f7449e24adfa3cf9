"""The guide's `python -m tools.live...` commands; the work is done in `cli`."""
