"""A planted secret, on real programs: what it is in while its task runs, and that nothing keeps it afterwards."""

import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tests.cluster.conftest import on_real_machines
from tests.cluster.rig import Rig


def command_lines() -> Iterator[bytes]:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            yield (process / "cmdline").read_bytes()


def files_with(secret: str, folder: Path) -> list[str]:
    found = []
    for path in folder.rglob("*"):
        with suppress(OSError):  # gone meanwhile
            if path.is_file() and secret.encode() in path.read_bytes():
                found.append(str(path))
    return found


@on_real_machines
def test_a_secret_variable_is_on_no_list_of_processes_and_nowhere_once_its_task_has_ended(cluster: Rig) -> None:
    secret, gate = f"planted-{uuid.uuid4().hex}", cluster.gate()
    script = f"echo is here ${{#PLANTED}}; {gate.wait}"
    task_id = cluster.shell(script, secret_env={"PLANTED": secret})
    cluster.wait_output(task_id, b"is here %d\n" % len(secret))
    assert not any(secret.encode() in line for line in command_lines())
    logs = [cluster.host.log, *(runner.log for runner in cluster.runners.values())]
    gate.open()
    assert cluster.wait(task_id)["status"] == "completed"
    assert secret not in str((cluster.task(task_id), cluster.history(task_id)))
    assert not any(secret in log.read_text(errors="replace") for log in logs)
    cluster.until(lambda: not files_with(secret, cluster.folder))
