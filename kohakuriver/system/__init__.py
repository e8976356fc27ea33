"""Hands: everything that touches the machine."""
