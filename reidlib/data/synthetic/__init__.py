"""A drawn data set, for work without any download."""
