"""Measures what the README claims, each figure against a floor taken in the same run."""
