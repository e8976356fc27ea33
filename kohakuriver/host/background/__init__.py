"""The host's supervised loops."""
