"""The guide's CI gate."""
