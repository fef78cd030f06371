"""Commands in the guides and READMEs are run, or shown to be what the program takes.

Covers: every command in a ``bash`` block, and those of python and make within a line: a row of COMMANDS says how it is checked,
and one without a row fails. Does not cover: what a command does once it runs (the tests named here, and those of the module).
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from tests.assets.guides import DOCS, ROOT, blocks, guide, prose, shown, text


def commands() -> Iterator[tuple[str, Path]]:
    for path in DOCS:
        yield from ((command, path) for command in re.findall(r"`((?:\S*python3? -m|make) [^`\n]+)`", prose(path)))
        for block in blocks(path, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                command = re.sub(r"(^|\s+)# .*$", "", line).strip()
                if command:
                    yield " ".join(command.split()), path


def target(words: list[str], path: Path) -> None:
    """make knows it."""
    subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True, timeout=20)


def module(words: list[str], path: Path) -> None:
    """A script of ours that can be run, and takes these options."""
    name, *given = words[words.index("-m") + 1 :]
    source = text(ROOT / f"{name.replace('.', '/')}.py")
    assert '__name__ == "__main__"' in source
    assert [one for one in given if one.startswith("--") and f'"{one}"' not in source] == []


def helped(words: list[str], path: Path) -> None:
    """It starts, and its help names the options."""
    module(words, path)
    program = [sys.executable, *words[1:3]]
    done = subprocess.run([*program, "--help"], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    assert [one for one in words if one.startswith("--") and one not in done.stdout] == []


def upload(words: list[str], path: Path) -> None:
    hf = Path(sys.executable).with_name("hf")
    done = subprocess.run([hf, "upload", "--help"], check=True, capture_output=True, text=True, timeout=60)
    assert [one for one in words if one.startswith("--") and one not in done.stdout] == []


def carried(words: list[str], path: Path, home: Path) -> None:
    """For real, in a workspace of its own."""
    (home / "jobs").mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "NARANHI_HOME": str(home)}
    given = [str(home / word) if word.endswith(".tar") else word for word in words[3:]]
    subprocess.run([sys.executable, "-m", "finetune.carry", *given], cwd=ROOT, env=env, check=True, timeout=60)


def recipe(words: list[str], path: Path) -> None:
    """As the container's recipe says it of itself (tests/test_container.py); the image is not built here."""
    assert shlex.join(words) in text(ROOT / "Dockerfile").replace("# ", "")


def launched(words: list[str], path: Path) -> None:
    """The launcher takes the option; what it does is tests/finetune/test_fsdp.py's."""
    found = find_spec("accelerate.commands.launch")
    assert found is not None and found.origin is not None and '"--num_processes"' in text(Path(found.origin))
    by_test("tests/finetune/test_fsdp.py", "test_one_process_goes_on_where_two_were")(words, path)


def by_test(file: str, name: str) -> Callable[[list[str], Path], None]:
    """Another test does it."""

    def there(words: list[str], path: Path) -> None:
        assert f"def {name}(" in text(ROOT / file)

    return there


def unrun(**phrases: str) -> Callable[[list[str], Path], None]:
    """A program of others that was never run; the guide has to say so in every language."""

    def admitted(words: list[str], path: Path) -> None:
        for language, phrase in phrases.items():
            assert phrase in " ".join(text(guide(language, path.name)).split())

    return admitted


def whole(words: list[str], path: Path) -> None:
    assert (ROOT / words[-1]).is_file()


CARRY = r"\S*python -m finetune\.carry (out|in) runs\.tar"
COMMANDS: dict[str, Callable[[list[str], Path], None]] = {
    r"(NARANHI_HOST=0\.0\.0\.0 )?make \w+": lambda words, path: target(words[words.index("make") :], path),
    r"\S*python -m finetune\.(train|merge_run) .*": helped,
    r"\S*python -m finetune\.(starter|supervise)\b.*": module,
    r"\S*python -m pytest tests/\S+\.py": whole,
    r"\S*python -m tests\..*": module,
    r"CUDA_VISIBLE_DEVICES=0,1 \S*python -m accelerate\.commands\.launch .*": launched,
    r"cd \d{8}-\d{6}-\w{4}": by_test("tests/finetune/test_remote_cluster.py", "test_the_folder_of_a_run_there"),
    r"NARANHI=~/naranhi sbatch --partition=gpu run\.sbatch": by_test(
        "tests/finetune/test_remote_cluster.py", "test_every_node_is_told_its_rank_and_where_the_first_is"
    ),
    r"hf upload \S+/naranhi \. .*": upload,
    r"docker (build|run) .*": recipe,
    r"vllm serve .*": unrun(ko="직접 돌려 보지는 못했고", en="Not run by us"),
}


def test_every_command_is_checked() -> None:
    done: set[str] = set()
    unknown: list[str] = []
    for command, path in commands():
        how = next((check for pattern, check in COMMANDS.items() if re.fullmatch(pattern, command)), None)
        if how is None:
            unknown += [] if re.fullmatch(CARRY, command) else [f"{shown(path)}: {command}"]
        elif command not in done:
            done.add(command)
            how(shlex.split(command), path)
    assert unknown == [] and len(done) >= 25


def test_runs_are_carried_as_the_guide_says(tmp_path: Path) -> None:
    found = [command for command, path in commands() if re.fullmatch(CARRY, command)]
    for command in dict.fromkeys(found):
        carried(shlex.split(command), ROOT, tmp_path)
    assert (tmp_path / "runs.tar").exists() and any(" in " in command for command in found)
