"""What the host decides and does."""
