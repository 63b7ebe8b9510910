"""Data frames and rankings in, matplotlib figures out."""
