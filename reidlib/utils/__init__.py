"""What every room uses: paths, seeds, messages, text, several processes."""
