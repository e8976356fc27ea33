"""KohakuRiver: one file that turns a few machines into one computer."""

__version__ = "0.1.0"
