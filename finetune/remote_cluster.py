"""Any machine or cluster: the files to start a run there, and what its folder tells here.

Covers: a Slurm script, the commands for machines without Slurm, the pack to take along, the state of a run whose folder
is here or was taken over. Does not cover: logging in anywhere. On a shared disk the folder is the run's own and the page
is live; otherwise the finished folder is taken over (remote_import.py).
"""

from __future__ import annotations

import shutil
import time
import zipfile
from dataclasses import replace
from pathlib import Path

from assets.errors import UserError
from assets.files import lock, write_atomic, write_json
from finetune import plan as planning
from finetune.gpu import Gpu, Machine
from finetune.jobs import Job, Jobs
from finetune.memory import GIB
from finetune.progress import tail
from finetune.remote_folder import look
from finetune.remote_import import LINK, describe
from finetune.remote_inputs import inputs
from finetune.runner import Order, facts
from finetune.shapes import shape_of
from finetune.spec import ClusterSpec, TrainSpec

SCRIPT, COMMANDS = "run.sbatch", "commands.sh"
HEAD = "HEAD"
SAVE = 600  # seconds before the cluster's time limit in which the run saves and stops

SLURM = r"""#!/bin/bash
#SBATCH --job-name=naranhi-{id}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={gpus}
#SBATCH --time={hours}:00:00
#SBATCH --signal=B:USR1@{save}
#SBATCH --output=slurm-%j.log
#
# sbatch {script}     in this folder, on a disk that every node sees. Add --partition, --account and the like to it.
# NARANHI is the folder of app.py there, PYTHON an interpreter with its requirements.txt.
export RUN="${{RUN:-$SLURM_SUBMIT_DIR}}"
export NARANHI="${{NARANHI:-$HOME/naranhi}}"
export PYTHON="${{PYTHON:-$NARANHI/.venv/bin/python}}"
export NARANHI_HOME="$RUN/home" PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS="${{OMP_NUM_THREADS:-8}}"
export HEAD="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
export PORT=$((20000 + SLURM_JOB_ID % 20000))
cd "$NARANHI" || exit 1
rm -f "$RUN/stop" "$RUN"/error*.json

# A few minutes before the time limit: save and stop. Submitting again goes on from there.
trap 'date > "$RUN/stop"' USR1
srun --kill-on-bad-exit=1 bash -c '{launch}' >> "$RUN/train.log" 2>&1 &
step=$!
wait "$step"; code=$?
while kill -0 "$step" 2>/dev/null; do wait "$step"; code=$?; done
"$PYTHON" -m finetune.remote_folder "$RUN"
exit "$code"
"""
TRAIN = '-m finetune.train --spec "$RUN/spec.yaml" --out "$RUN"'
ACCELERATE = (
    '"$PYTHON" -m accelerate.commands.launch --config_file "$RUN/accelerate.yaml" --log_dir /dev/null'
    " --machine_rank {rank}"
    ' --main_process_ip "$HEAD" --main_process_port "$PORT" '
)
PLAIN = r"""# On every machine: the same code, the same RUN folder on a disk that all of them see, then its own line.
export NARANHI=~/naranhi RUN=~/{id} PYTHON=~/naranhi/.venv/bin/python HEAD={head} PORT={port}
export NARANHI_HOME="$RUN/home"; cd "$NARANHI"
{lines}
# When it has ended, on one of them:
"$PYTHON" -m finetune.remote_folder "$RUN"
"""


class ClusterRunner:
    """Runs that somebody starts by hand somewhere else. Starting one writes its folder."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def start(self, order: Order) -> Job:
        """The folder with settings, data, script and commands. UserErrors of planning, "elsewhere.local_model" …"""
        with lock(self._jobs.workspace.jobs / "take"):
            same = [job for job in self._jobs.list() if order.request and job.request == order.request]
            if same:
                return same[0]
            files = inputs(self._jobs.workspace, order.spec)
            spec = order.spec
            plan = plan_there(self._jobs, order)
            folder = self._jobs.new_folder()
            _write(folder, spec, plan, order)
            for name, path in files.items():
                (folder / "home" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, folder / "home" / name)
            write_json(folder / LINK, {"version": 1, "where": "cluster", "spec": spec.to_dict()})
            known = facts(order.spec, "cluster")
            self._jobs.save(
                Job(folder.name, spec.name or folder.name, "starting", time.time(), order.request, facts=known)
            )
        return self._jobs.get(folder.name)

    def state(self, job_id: str) -> Job:
        """As the files in its folder tell; nothing changes when they do not."""
        job = self._jobs.get(job_id)
        if job.active:
            folder = self._jobs.folder(job_id)
            told = describe(self._jobs, job_id, self._jobs.spec(job_id), look(folder))
            if (told.state, told.error) != (job.state, job.error):
                self._jobs.save(told)
        return self._jobs.get(job_id)

    def logs(self, job_id: str, size: int = 20_000) -> str:
        return tail(self._jobs.folder(job_id) / "train.log", size)

    def stop(self, job_id: str) -> None:
        """On a shared disk the run sees the request and saves; one that never began is taken out."""
        job = self._jobs.get(job_id)
        if job.state == "starting":
            self._jobs.change(job_id, state="stopped", ended=time.time())
        elif job.active:
            write_atomic(self._jobs.folder(job_id) / "stop", str(time.time()))

    def cancel(self, job_id: str) -> None:
        """Nobody here can end a process there: the list only stops waiting for it."""
        self.stop(job_id)
        self._jobs.change(job_id, state="stopped", ended=time.time())

    def listed(self) -> list[Job]:
        return [job for job in self._jobs.list() if job.facts.get("where") == "cluster"]

    def reattach(self, account: str = "") -> list[str]:
        """Runs are known by their folders; only their states may have moved."""
        for job in self.listed():
            self.state(job.id)
        return []


def plan_there(jobs: Jobs, order: Order) -> planning.LaunchPlan:
    """The plan for machines with so many equal GPUs; nothing else is known of them. The address of the first comes when
    it starts. UserError("elsewhere.no_gpus")."""
    if order.nodes < 1 or order.gpus < 1:
        raise UserError("elsewhere.no_gpus")
    size = order.memory or 80 * GIB
    cards = tuple(Gpu(i, f"there-{i}", "GPU", size, size, bfloat16=True) for i in range(order.gpus))
    machine = Machine(cards, cores=8, memory=1 << 50, memory_free=1 << 50, disk_free=1 << 50)
    hardware = replace(order.spec.hardware, gpus="auto")
    if hardware.placement == "single" and order.nodes * order.gpus > 1:
        hardware = replace(hardware, placement="auto")
    cluster = ClusterSpec(machines=order.nodes, address=HEAD if order.nodes > 1 else "")
    spec = replace(order.spec, hardware=hardware, cluster=cluster)
    return planning.make(spec, machine, shape_of(jobs.workspace, spec.model), Path("$RUN"))


def slurm_script(run_id: str, plan: planning.LaunchPlan, order: Order) -> str:
    """The text of the Slurm script for a run."""
    launch = (ACCELERATE.format(rank='"$SLURM_NODEID"') if plan.files else '"$PYTHON" ') + TRAIN
    gpus = order.gpus if plan.files else 1
    hours = max(1, order.hours)
    return SLURM.format(id=run_id, nodes=order.nodes, gpus=gpus, hours=hours, save=SAVE, script=SCRIPT, launch=launch)


def commands(run_id: str, plan: planning.LaunchPlan, order: Order) -> str:
    """The same for machines without Slurm: one line each."""
    lines = []
    for rank in range(order.nodes):
        launch = (ACCELERATE.format(rank=rank) if plan.files else 'CUDA_VISIBLE_DEVICES=0 "$PYTHON" ') + TRAIN
        lines.append(f'# {rank + 1} / {order.nodes}\n{launch} >> "$RUN/train.log" 2>&1')
    head = "127.0.0.1" if order.nodes == 1 else "<address-of-machine-1>"
    return PLAIN.format(id=run_id, head=head, port=29500, lines="\n".join(lines))


def _write(folder: Path, spec: TrainSpec, plan: planning.LaunchPlan, order: Order) -> None:
    folder.mkdir(parents=True)
    (folder / "home").mkdir()
    write_atomic(folder / "spec.yaml", spec.to_yaml())
    for name, text in plan.files.items():
        write_atomic(folder / name, text)
    write_atomic(folder / SCRIPT, slurm_script(folder.name, plan, order))
    write_atomic(folder / COMMANDS, commands(folder.name, plan, order))


def pack(folder: Path, target: Path) -> Path:
    """What was written for a run as a zip with the run's folder in it."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        wanted = [folder / name for name in ("spec.yaml", "accelerate.yaml", SCRIPT, COMMANDS)]
        for path in [*wanted, *sorted((folder / "home").rglob("*"))]:
            if path.is_file():
                archive.write(path, f"{folder.name}/{path.relative_to(folder).as_posix()}")
        archive.writestr(f"{folder.name}/home/.keep", "")
    return target
