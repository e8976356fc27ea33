"""What SSH asks of a workload: a port in it, a process in it, its files."""

from typing import Protocol

from kohakuriver.host.services.ssh.people import Workload
from kohakuriver.model.ssh_api import StartProcess
from kohakuriver.wire.sockets import Socket

SSH_PORT = 22


class Inside(Protocol):
    """How a workload is reached; all raise RiverError when it is not there or cannot do it."""

    async def port(self, workload: Workload, host: str, port: int) -> Socket:
        """A connection from within; bytes both ways, empty bytes end a direction. Raises NotFound when nobody listens."""

    async def process(self, workload: Workload, wanted: StartProcess) -> Socket:
        """A process, spoken with in the frames of `model/terminal.py`, of which it is INPUT, END_INPUT, RESIZE and SIGNAL, and OUTPUT, ERRORS and EXIT back; it ends with the socket."""

    async def files(self, workload: Workload, user: str) -> Socket:
        """Its files, by the packets of SFTP version 3."""
