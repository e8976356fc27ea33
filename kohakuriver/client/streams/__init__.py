"""Commands that hold sockets: terminals and forwards."""
