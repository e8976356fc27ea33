"""The SDK's client of the daemon behind a unix socket; importing this takes 0.2 s, so it is for threads."""

import socket
from contextlib import closing
from typing import Any

import docker
from docker.constants import DEFAULT_DOCKER_API_VERSION
from docker.transport.unixconn import UnixHTTPAdapter, UnixHTTPConnection, UnixHTTPConnectionPool


class _Connection(UnixHTTPConnection):  # type: ignore[misc]
    """The SDK forgets to close a socket that found nobody; while a daemon is away they would pile up."""

    def connect(self) -> None:
        connecting = socket.socket(socket.AF_UNIX)
        try:
            connecting.settimeout(self.timeout)
            connecting.connect(self.unix_socket)
        except OSError:
            connecting.close()
            raise
        self.sock = connecting


class _Pool(UnixHTTPConnectionPool):  # type: ignore[misc]
    def _new_conn(self) -> _Connection:
        return _Connection(self.base_url, self.socket_path, self.timeout)


class _OnePool(UnixHTTPAdapter):  # type: ignore[misc]
    """The SDK keeps connections per address, and so opens a new one for each container."""

    def __init__(self, path: str, timeout_seconds: float, threads: int) -> None:
        super().__init__(f"http+unix://{path}", timeout_seconds, max_pool_size=threads)
        self.pools["all"] = _Pool("http+docker://localhost", self.socket_path, timeout_seconds, maxsize=threads)

    def get_connection(self, url: str, proxies: Any = None) -> Any:
        return self.pools["all"]


def connect(path: str, timeout_seconds: float, threads: int = 1, version: str = "") -> docker.APIClient:
    """A client that so many threads may use at once, of the daemon's own API version unless another is named.

    `timeout_seconds` is how long the daemon may keep silent. Raises DockerException or an OSError when none answers.
    """
    if not version:
        with closing(connect(path, timeout_seconds, version=DEFAULT_DOCKER_API_VERSION)) as asking:
            version = asking.version(api_version=False)["ApiVersion"]
    api = docker.APIClient(f"unix://{path}", version=version, timeout=timeout_seconds)
    api.get_adapter("http+docker://").close()
    api.mount("http+docker://", _OnePool(path, timeout_seconds, threads))
    api.trust_env = False  # proxies have no say on a unix socket, and asking for them takes as long as the call
    return api
