"""Runs on other machines: what is written for them, and a Slurm that is acted out on this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from assets.errors import UserError
from assets.files import Workspace
from finetune import remote_cluster
from finetune.jobs import ROOT, Jobs
from finetune.memory import GIB, Shape
from finetune.plan import LaunchPlan
from finetune.progress import read
from finetune.remote_cluster import COMMANDS, SCRIPT, ClusterRunner, pack
from finetune.remote_import import take_over
from finetune.runner import Order
from finetune.spec import HardwareSpec
from tests.fake_hub import TOKEN, Repo
from tests.fake_jobs import FakeJobs, jobs_serving
from tests.finetune import far_run
from tests.finetune.far_run import SPEC, write
from tests.finetune.two_ranks import PATH, TALKS
from tests.models import make_model

SHAPE = Shape(64, 2, 128, 2, 1, 64, 512, True)
SRUN = r"""#!/bin/bash
[ "$1" = --kill-on-bad-exit=1 ] && shift
for node in $(seq 0 $((SLURM_NNODES - 1))); do SLURM_NODEID=$node "$@" & pids="$pids $!"; done
code=0; for pid in $pids; do wait $pid || code=$?; done; exit $code
"""
SCONTROL = '#!/bin/bash\n[ "$*" = "show hostnames nodes[1-2]" ] && printf "127.0.0.1\\nother\\n"\n'
PYTHON = r"""#!/bin/bash
if [ "$2" = finetune.remote_folder ]; then exec {real} "$@"; fi
printf '%s\n' "$@" > "$RUN/node-$SLURM_NODEID"
while [ -e "$RUN/wait" ] && [ ! -e "$RUN/stop" ]; do sleep 0.1; done
exit ${{CODE:-0}}
"""


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    monkeypatch.setattr(remote_cluster, "shape_of", lambda *_: SHAPE)
    workspace = Workspace(tmp_path / "home").prepare()
    rows = "\n".join(json.dumps({"messages": talk}, ensure_ascii=False) for talk in TALKS)
    (workspace.uploads / "talks.jsonl").write_text(rows, encoding="utf-8")
    return Jobs(workspace)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeJobs]:
    with jobs_serving() as running:
        folder = make_model(tmp_path / "tiny", "llama")
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        running.repos["org/tiny"] = Repo(private=False, files=files)
        yield running


def tools(tmp_path: Path) -> Path:
    """srun and scontrol for two nodes that are this machine."""
    folder = tmp_path / "bin"
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("python", PYTHON.format(real=sys.executable))):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o755)
    return folder


def environment(tmp_path: Path, folder: Path, nodes: int = 2, **more: str) -> dict[str, str]:
    slurm = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "nodes[1-2]", "SLURM_NNODES": str(nodes)}
    where = {"SLURM_SUBMIT_DIR": str(folder), "NARANHI": str(ROOT), "PYTHON": str(tmp_path / "bin" / "python")}
    path = {"PATH": f"{tools(tmp_path)}:{os.environ['PATH']}", "HOME": os.environ.get("HOME", "/")}
    return {**path, **slurm, **where, **more}


def submit(tmp_path: Path, folder: Path, nodes: int = 2, **more: str) -> subprocess.Popen[bytes]:
    """As sbatch does: a copy of the script, from its spool."""
    shutil.copyfile(folder / SCRIPT, tmp_path / "slurm_script")
    env = environment(tmp_path, folder, nodes, **more)
    return subprocess.Popen(["bash", str(tmp_path / "slurm_script")], cwd=tmp_path, env=env)


def told(folder: Path, node: int) -> list[str]:
    return (folder / f"node-{node}").read_text(encoding="utf-8").splitlines()


def test_the_folder_of_a_run_there(jobs: Jobs, tmp_path: Path) -> None:
    made = ClusterRunner(jobs)
    order = Order(SPEC, "click", nodes=2, gpus=4, memory=80 * GIB, hours=5)
    job = made.start(order)
    assert made.start(order).id == job.id and [found.id for found in made.listed()] == [job.id]
    folder = jobs.folder(job.id)
    assert job.state == "starting" and jobs.spec(job.id) == SPEC
    assert (folder / "home" / "uploads" / "talks.jsonl").exists()
    script = (folder / SCRIPT).read_text(encoding="utf-8")
    for line in ("--nodes=2", "--gpus-per-node=4", "--time=5:00:00", "--ntasks-per-node=1", "--signal=B:USR1@600"):
        assert f"#SBATCH {line}\n" in script
    assert "num_processes: 8\nnum_machines: 2\n" in (folder / "accelerate.yaml").read_text(encoding="utf-8")
    with zipfile.ZipFile(pack(folder, tmp_path / "pack.zip")) as archive:
        names = {name.removeprefix(f"{job.id}/") for name in archive.namelist()}
    assert {"spec.yaml", "accelerate.yaml", SCRIPT, COMMANDS, "home/uploads/talks.jsonl"} <= names
    assert "job.json" not in names and str(jobs.workspace.root) not in script
    for name in (SCRIPT, COMMANDS):
        subprocess.run(["bash", "-n", str(folder / name)], check=True)


def test_machines_without_slurm_have_a_line_each(jobs: Jobs) -> None:
    folder = jobs.folder(ClusterRunner(jobs).start(Order(SPEC, nodes=3, gpus=2, memory=80 * GIB)).id)
    lines = (folder / COMMANDS).read_text(encoding="utf-8").splitlines()
    launches = [line for line in lines if "accelerate.commands.launch" in line]
    assert [line.split("--machine_rank ")[1].split()[0] for line in launches] == ["0", "1", "2"]


def test_one_gpu_needs_no_launcher(jobs: Jobs) -> None:
    folder = jobs.folder(ClusterRunner(jobs).start(Order(SPEC, nodes=1, gpus=1, memory=80 * GIB)).id)
    assert not (folder / "accelerate.yaml").exists()
    assert "accelerate" not in (folder / SCRIPT).read_text(encoding="utf-8")
    assert 'CUDA_VISIBLE_DEVICES=0 "$PYTHON" -m finetune.train' in (folder / COMMANDS).read_text(encoding="utf-8")


def test_a_wish_for_one_gpu_gives_way_to_several(jobs: Jobs) -> None:
    spec = replace(SPEC, hardware=HardwareSpec(placement="single", gpus="0"))
    plan = remote_cluster.plan_there(jobs, Order(spec, nodes=2, gpus=2, memory=80 * GIB))
    assert isinstance(plan, LaunchPlan) and (plan.placement, plan.processes) == ("ddp", 4)


@pytest.mark.parametrize(("nodes", "gpus"), [(0, 1), (1, 0), (-2, 4)])
def test_no_machines_are_refused(jobs: Jobs, nodes: int, gpus: int) -> None:
    with pytest.raises(UserError) as caught:
        ClusterRunner(jobs).start(Order(SPEC, nodes=nodes, gpus=gpus))
    assert caught.value.key == "elsewhere.no_gpus" and jobs.list() == []


def test_every_node_is_told_its_rank_and_where_the_first_is(jobs: Jobs, tmp_path: Path) -> None:
    folder = jobs.folder(ClusterRunner(jobs).start(Order(SPEC, nodes=2, gpus=4, memory=80 * GIB)).id)
    write(folder, {**far_run.curves(), **far_run.adapter(), **far_run.record()})
    assert submit(tmp_path, folder).wait(60) == 0
    for node in (0, 1):
        words = told(folder, node)
        assert words[words.index("--machine_rank") + 1] == str(node)
        assert words[words.index("--main_process_ip") + 1] == "127.0.0.1"
        assert words[words.index("--config_file") + 1] == str(folder / "accelerate.yaml")
        assert words[-4:] == ["--spec", str(folder / "spec.yaml"), "--out", str(folder)]
    ports = {told(folder, node)[told(folder, node).index("--main_process_port") + 1] for node in (0, 1)}
    assert len(ports) == 1 and 20000 <= int(ports.pop()) < 40000
    assert (folder / "files.json").exists()  # sealed


def test_a_failed_run_is_a_failed_slurm_job(jobs: Jobs, tmp_path: Path) -> None:
    folder = jobs.folder(ClusterRunner(jobs).start(Order(SPEC, nodes=2, gpus=4, memory=80 * GIB)).id)
    assert submit(tmp_path, folder, CODE="7").wait(60) == 7


def test_before_the_time_limit_it_is_asked_to_save(jobs: Jobs, tmp_path: Path) -> None:
    folder = jobs.folder(ClusterRunner(jobs).start(Order(SPEC, nodes=2, gpus=4, memory=80 * GIB)).id)
    write(folder, {"wait": b"", "stop": b"of an earlier attempt"})
    process = submit(tmp_path, folder)
    deadline = time.monotonic() + 60
    while not (folder / "node-1").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not (folder / "stop").exists()
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 0 and (folder / "stop").exists() and (folder / "files.json").exists()


def test_on_a_shared_disk_the_page_is_live(jobs: Jobs) -> None:
    made = ClusterRunner(jobs)
    job = made.start(Order(SPEC, nodes=1, gpus=1, memory=80 * GIB))
    folder = jobs.folder(job.id)
    assert made.state(job.id).state == "starting"
    write(folder, far_run.curves(2))
    assert made.state(job.id).state == "running" and read(folder).step == 2 and made.logs(job.id) == "한 줄"
    made.stop(job.id)
    assert (folder / "stop").exists() and made.state(job.id).state == "running"
    write(folder, {**far_run.checkpoint(2), **far_run.record(stopped=True)})
    ended = made.state(job.id)
    assert (ended.state, ended.error, ended.started) == ("stopped", None, 100.0)


def test_what_never_began_is_taken_out(jobs: Jobs) -> None:
    made = ClusterRunner(jobs)
    job = made.start(Order(SPEC, nodes=1, gpus=1, memory=80 * GIB))
    made.stop(job.id)
    assert jobs.get(job.id).state == "stopped"


def test_the_folder_that_comes_back_fills_its_own_run(jobs: Jobs, tmp_path: Path) -> None:
    job = ClusterRunner(jobs).start(Order(SPEC, nodes=2, gpus=4, memory=80 * GIB))
    there = write(tmp_path / "scratch" / job.id, far_run.finished())
    taken = take_over(jobs, there)
    assert (taken.id, taken.state) == (job.id, "finished") and len(jobs.list()) == 1


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_nodes_train_one_adapter(jobs: Jobs, hub: FakeJobs, tmp_path: Path) -> None:
    """The script as it is written, real ranks on one machine that plays two, and the folder taken over."""
    job = ClusterRunner(jobs).start(Order(SPEC, nodes=2, gpus=1, memory=80 * GIB))
    with zipfile.ZipFile(pack(jobs.folder(job.id), tmp_path / "pack.zip")) as archive:
        archive.extractall(tmp_path / "there")
    folder = tmp_path / "there" / job.id
    real = {
        "PYTHON": sys.executable,
        "PYTHONPATH": PATH,
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path / "hf"),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    assert submit(tmp_path, folder, **real).wait(300) == 0, (folder / "train.log").read_text()
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert record["environment"]["processes"] == 2 and TOKEN not in (folder / "train.log").read_text()
    taken = take_over(jobs, folder)
    assert (taken.id, taken.state) == (job.id, "finished") and read(jobs.folder(job.id)).step == 4
