"""Time and memory of evaluation, re-ranking, training and embedding; `make bench` runs all four."""
