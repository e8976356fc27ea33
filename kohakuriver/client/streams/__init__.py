"""Commands that hold sockets: terminals, forwards, and what is followed."""
