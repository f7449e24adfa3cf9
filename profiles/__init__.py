"""The ramp profiles of the guide, and their loader."""
