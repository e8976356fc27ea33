"""What Docker says becomes one line that tells what to do."""

import pytest

from kohakuriver.model.errors import EngineFailed
from kohakuriver.system.docker_errors import ApiRefused, failed, not_pulled, not_started, one_line, told_as, unreachable

OCI = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: "


def test_the_machinery_is_left_out() -> None:
    assert one_line(f'{OCI}exec: "nope": executable file not found in $PATH: unknown') == (
        'exec: "nope": executable file not found in $PATH'
    )
    old = 'OCI runtime create failed: container_linux.go:380: starting container process caused: exec: "x": is a dir'
    assert one_line(old) == 'exec: "x": is a dir'
    assert one_line("two\n lines ") == "two lines"
    assert one_line("") == "no reason given"


@pytest.mark.parametrize(
    ("status", "text", "elsewhere"),
    [
        (400, f'{OCI}exec: "nope": executable file not found in $PATH: unknown', False),
        (500, f'{OCI}exec: "x": permission denied: unknown', False),
        (500, "Cannot mkdir: /etc/passwd is not a directory", False),
        (400, "invalid reference format", False),
        (400, "Minimum memory limit allowed is 6MB", False),
        (400, "Requested CPUs are not available - requested 0-9, available: 0-1", True),
        (400, "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available", True),
        (400, 'invalid mount config for type "bind": bind source path does not exist: /data', True),
        (500, 'could not select device driver "nvidia" with capabilities: [[gpu]]', True),
        (500, "write /var/lib/docker/x: no space left on device", True),
        (404, "No such image: lab:1", True),
        (404, "network kohakuriver-net not found", True),
        (500, "something broke", True),
    ],
)
def test_another_node_is_tried_only_when_it_could_do_better(status: int, text: str, elsewhere: bool) -> None:
    error = failed("cannot start", ApiRefused(status, text))
    assert error.retry_elsewhere is elsewhere
    assert str(error).startswith("cannot start: ")


@pytest.mark.parametrize(
    ("text", "elsewhere"),
    [
        ("dial tcp 10.0.0.1:443: connect: connection refused", True),
        ("Get https://registry/v2/: net/http: TLS handshake timeout", True),
        ("manifest for lab/x:1 not found: manifest unknown", False),
        ("pull access denied for nope, repository does not exist", False),
    ],
)
def test_an_image_is_looked_for_elsewhere_unless_the_registry_is_certain(text: str, elsewhere: bool) -> None:
    assert not_pulled("lab/x:1", text).retry_elsewhere is elsewhere


def test_a_daemon_that_is_away_is_a_reason_to_go_elsewhere() -> None:
    error = unreachable("/run/docker.sock", FileNotFoundError("no\nsuch file"))
    assert error.retry_elsewhere
    assert str(error) == "the Docker daemon at /run/docker.sock does not answer: no such file"


def test_a_refusal_in_a_block_is_told_as_what_was_tried() -> None:
    with pytest.raises(EngineFailed, match="^cannot pause: it sleeps$"), told_as("cannot pause"):
        raise ApiRefused(500, "it sleeps")


def test_only_a_missing_container_is_no_such_container() -> None:
    assert ApiRefused(404, "No such container: abc").is_no_such_container
    assert not ApiRefused(404, "network x not found").is_no_such_container
    assert not ApiRefused(500, "No such container: abc").is_no_such_container


INSIDE = "OCI runtime exec failed: exec failed: unable to start container process: "


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (f'{INSIDE}exec: "a b": executable file not found in $PATH: unknown\r\n', ("a b: not found\n", 127)),
        (f'{INSIDE}exec: "/x": stat /x: no such file or directory: unknown\r\n', ("/x: not found\n", 127)),
        (f'{INSIDE}exec: "/etc": permission denied: unknown', ("/etc: permission denied\n", 126)),
        ("unable to find user ada: no matching entries\n", ("unable to find user ada: no matching entries\n", 126)),
    ],
)
def test_a_process_that_did_not_begin_is_told_as_by_a_shell(said: str, told: tuple[str, int]) -> None:
    assert not_started(said) == told
