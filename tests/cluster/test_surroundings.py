"""What a task finds around it: variables, working directory, shared and local storage, mounts."""

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import on_docker, on_real_machines
from tests.cluster.rig import Rig


def test_a_task_has_its_variables_and_cannot_take_ours(cluster: Cluster) -> None:
    variables = {"GREETING": "two  words $HOME \"'\nand a line", "EMPTY": "", "KOHAKURIVER_NODE": "mine"}
    script = 'printf "%s|" "$GREETING" "$EMPTY" "$KOHAKURIVER_NODE" "$KOHAKURIVER_TASK_ID" "$KOHAKURIVER_ATTEMPT"'
    task = cluster.run_shell(script, env_vars=variables, targets=["beta"])
    wanted = [variables["GREETING"], "", "beta", task["task_id"], "1"]
    assert cluster.output(task["task_id"]).decode() == "".join(f"{each}|" for each in wanted)


def test_a_task_begins_in_its_working_directory(cluster: Cluster) -> None:
    task = cluster.run("pwd", working_dir="/tmp")
    assert cluster.output(task["task_id"]) == b"/tmp\n"


@on_real_machines
def test_tasks_find_each_others_files_in_shared_and_in_local_storage(cluster: Rig) -> None:
    write = (
        'echo "$0 was here" > "$KOHAKURIVER_SHARED_DIR/from-$0" && echo local > "$KOHAKURIVER_LOCAL_TEMP_DIR/from-$0"'
    )
    task = cluster.run("sh", "-c", write, "first", targets=["alpha"])
    assert task["status"] == "completed", cluster.output(task["task_id"], "stderr")
    read = 'cat "$KOHAKURIVER_SHARED_DIR/from-first" "$KOHAKURIVER_LOCAL_TEMP_DIR/from-first"'
    task = cluster.run_shell(read, targets=["alpha"])
    assert cluster.output(task["task_id"]) == b"first was here\nlocal\n"
    assert (cluster.folder / "shared/shared_data/from-first").read_text() == "first was here\n"


@on_docker
def test_storage_lies_where_the_manual_says(cluster: Rig) -> None:
    task = cluster.run_shell('echo "$KOHAKURIVER_SHARED_DIR $KOHAKURIVER_LOCAL_TEMP_DIR"', targets=["alpha"])
    assert cluster.output(task["task_id"]) == b"/shared /local_temp\n"
    task = cluster.run_shell('echo "$KOHAKURIVER_SHARED_DIR $KOHAKURIVER_LOCAL_TEMP_DIR"', targets=["beta"])
    assert cluster.output(task["task_id"]) == b" /local_temp\n", "beta has no shared storage"


@on_docker
def test_a_task_sees_the_directories_it_asked_for_and_may_be_kept_from_writing_them(cluster: Rig) -> None:
    shown = cluster.folder / "shown"
    shown.mkdir()
    (shown / "file").write_text("from the node")
    task = cluster.run_shell("cat /data/file; echo from the task > /data/new", additional_mounts=[f"{shown}:/data"])
    assert cluster.output(task["task_id"]) == b"from the node"
    assert (shown / "new").read_text() == "from the task\n"
    task = cluster.run_shell("echo again > /data/new", additional_mounts=[f"{shown}:/data:ro"])
    assert task["status"] == "failed"
    assert (shown / "new").read_text() == "from the task\n"


@on_docker
def test_a_directory_outside_the_allowed_roots_is_refused_also_behind_a_link(cluster: Rig) -> None:
    way_out = cluster.folder / "way-out"
    way_out.symlink_to("/etc")
    for source in ("/etc", str(way_out), str(cluster.folder / "alpha"), str(cluster.folder / "secret")):
        task = cluster.run("ls", "/data", additional_mounts=[f"{source}:/data"])
        assert (task["status"], task["exit_code"]) == ("failed", None), source
        assert source in task["error_message"] and (
            "allowed" in task["error_message"] or "may not" in task["error_message"]
        )


@on_docker
def test_a_task_gets_as_much_of_the_machine_as_it_asked_for(cluster: Rig) -> None:
    task = cluster.run("nproc", required_cores=1, required_memory_bytes=64 * 10**6)
    assert task["status"] == "completed"
    limit = cluster.run_shell(
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2> /dev/null; true",
        required_memory_bytes=64 * 2**20,
    )
    assert cluster.output(limit["task_id"]).split() == [b"%d" % (64 * 2**20)]
