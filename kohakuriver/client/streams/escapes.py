"""Keys that are for us and not for the program: `~.` at the beginning of a line. Sans-IO."""

from typing import NamedTuple

ESCAPE = ord("~")
LINE_ENDS = b"\r\n"


class Typed(NamedTuple):
    """What goes to the program, and whether the person wants to leave."""

    data: bytes
    leaves: bool


class Escapes:
    """Takes what is typed in any cuts; `~~` is a `~`."""

    def __init__(self) -> None:
        self._at_line_start, self._after_escape = True, False

    def feed(self, data: bytes) -> Typed:
        """What of it goes on."""
        out = bytearray()
        for byte in data:
            if self._after_escape:
                self._after_escape = False
                if byte == ord("."):
                    return Typed(bytes(out), True)
                out += bytes((byte,)) if byte == ESCAPE else bytes((ESCAPE, byte))
            elif byte == ESCAPE and self._at_line_start:
                self._after_escape = True
                continue
            else:
                out.append(byte)
            self._at_line_start = byte in LINE_ENDS
        return Typed(bytes(out), False)
