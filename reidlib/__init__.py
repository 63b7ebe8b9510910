"""Person re-identification with LA-Transformer: a small library behind seven notebooks."""
