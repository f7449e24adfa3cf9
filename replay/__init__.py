"""Deciding windows again: recorded ones, or those of a KPI file, through the core itself."""
