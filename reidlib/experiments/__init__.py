"""Configurations, studies and their runs: the one place that knows all rooms below."""
