"""Thin answers to the host's routes."""
