"""The file of logins: nobody else's, nobody else can read it, and never half written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kohakuriver.client import contexts
from kohakuriver.client.contexts import Book, Cluster
from kohakuriver.client.reach import reach
from kohakuriver.model.errors import BadRequest, NotAllowed, NotFound
from tests.client.conftest import River
from tests.client.made_up_host import MadeUpHost

LAB = Cluster(host="10.0.0.1", port=8000, user="ada", token="krt_1_x")
HOME = Cluster(host="10.0.0.2", port=9000)


@pytest.fixture
def file(home: Path) -> Path:
    contexts.change(lambda book: Book(clusters={"lab": LAB, "home": HOME}, current="home"))
    return home / ".kohakuriver" / "auth.json"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o622, 0o610])
def test_a_file_that_others_may_touch_is_refused(file: Path, mode: int, river: River) -> None:
    file.chmod(mode)
    told = river("task", "list")
    assert told.code == 4 and f"chmod 600 {file}" in told.err and "krt_1_x" not in told.err


def test_a_file_of_somebody_else_is_refused(file: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(file, 65534, 65534)
    with pytest.raises(NotAllowed, match="file of your own"):
        contexts.read()


def test_a_link_a_pipe_and_a_folder_are_refused(file: Path) -> None:
    elsewhere = file.with_name("elsewhere")
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    with pytest.raises(NotAllowed, match="link"):
        contexts.read()
    file.unlink()
    os.mkfifo(file, 0o600)
    with pytest.raises(NotAllowed, match="file of your own"):
        contexts.read()
    file.unlink()
    file.mkdir(0o700)
    with pytest.raises(NotAllowed):
        contexts.read()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"clusters": {"a": 1}}', '{"clusters": {"a": {"host": "x"}}}'])
def test_a_file_that_is_something_else_is_told(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(BadRequest, match="delete it, log in again"):
        contexts.read()


def test_what_a_newer_release_has_written_is_read(file: Path) -> None:
    told = json.loads(file.read_text())
    told["clusters"]["lab"]["colour"] = "green"
    file.write_text(json.dumps(told))
    assert contexts.read().clusters["lab"] == LAB


def test_two_who_log_in_at_once_do_not_lose_each_other(home: Path) -> None:
    code = (
        "import sys; from kohakuriver.client import contexts; from kohakuriver.client.contexts import Cluster\n"
        "for n in range(25): contexts.change("
        "lambda b: b.with_cluster(f'{sys.argv[1]}{n}', Cluster(host='h', port=1, token='t')))"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, name]) for name in "abc"]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    assert len(contexts.read().clusters) == 75
    assert [path.name for path in (home / ".kohakuriver").iterdir()] == ["auth.json"]


def test_the_first_place_that_says_where_decides(file: Path) -> None:
    def found(typed: dict[str, str], environment: dict[str, str]) -> tuple[str, str, int, str]:
        at = reach({f"client_{name}": value for name, value in typed.items()}, environment)
        return at.cluster, at.host, at.port, at.token

    lab, home = ("lab", "10.0.0.1", 8000, "krt_1_x"), ("home", "10.0.0.2", 9000, "")
    assert found({}, {}) == home
    assert found({"cluster": "lab"}, {"KOHAKURIVER_HOST": "elsewhere", "KOHAKURIVER_CLUSTER": "home"}) == lab
    assert found({}, {"KOHAKURIVER_CLUSTER": "lab"}) == lab
    assert found({"host": "10.0.0.1"}, {"KOHAKURIVER_CLUSTER": "home"}) == lab
    assert found({}, {"KOHAKURIVER_HOST": "10.0.0.1"}) == lab
    assert found({}, {"KOHAKURIVER_HOST": "10.0.0.1", "KOHAKURIVER_TOKEN": "krt_2_y"}) == (*lab[:3], "krt_2_y")
    assert found({"host": "10.0.0.1", "port": "8001"}, {}) == ("", "10.0.0.1", 8001, "")  # another port: another host
    assert found({"host": "stranger"}, {}) == ("", "stranger", 8000, "")
    with pytest.raises(NotFound, match="known are lab, home"):
        found({"cluster": "third"}, {})
    with pytest.raises(BadRequest):
        found({"cluster": "a b"}, {})


def test_a_token_is_never_sent_to_another_address_than_the_one_it_is_for(
    home: Path, host: MadeUpHost, river: River
) -> None:
    contexts.change(lambda book: book.with_cluster("lab", LAB))
    assert river("node", "list").code == 0  # KOHAKURIVER_PORT leads elsewhere
    assert host.tokens == [None]
    contexts.change(lambda book: book.with_cluster("here", Cluster(host="127.0.0.1", port=host.port, token="krt_3_z")))
    host.outputs["stdout", 1] = b"hello\n"
    assert river("node", "list").code == 0
    assert river("task", "logs", "187000000000000001").out == "hello\n"
    assert host.tokens == [None, "Bearer krt_3_z", "Bearer krt_3_z"]
