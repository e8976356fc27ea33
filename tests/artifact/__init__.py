"""Tests of the built file and of the tool that builds it."""
