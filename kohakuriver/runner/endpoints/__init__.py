"""Thin answers to the runner's routes."""
