"""Images -> part features, logits and one embedding."""
