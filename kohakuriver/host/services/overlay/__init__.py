"""The host's part of the overlay network."""
