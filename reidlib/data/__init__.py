"""Folders of images -> one checked manifest -> batches."""
