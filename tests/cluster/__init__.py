"""Whole clusters of the built file: its host, its runners, real containers, and whatever may happen to them."""
