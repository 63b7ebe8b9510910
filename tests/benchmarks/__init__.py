"""Time and memory of evaluation, re-ranking and search; `make bench` runs all three."""
