"""What the command line can start besides the client commands; this room belongs to the layer of `__main__`.

Only here, at the top, may one module know host, runner and client at once.
"""
