"""The vocabulary every program shares: values only, no I/O."""
