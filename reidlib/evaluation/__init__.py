"""Embeddings -> ranks -> scores under named protocols, with intervals and tests."""
