"""How programs talk: the route table made into servers and calls."""
