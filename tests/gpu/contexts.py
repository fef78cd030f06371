"""What the driver counts for a process beyond what PyTorch reserved: CUDA's context, its libraries, NCCL's buffers.

By hand, on a GPU that nothing else uses: python -m tests.gpu.contexts
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from tests.gpu.ranks_run import ONE_CARD, ROOT


def hold() -> None:
    """A process that does what training does to the driver, says what PyTorch reserved, and waits to be ended."""
    import torch
    import torch.nn.functional as F
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    x = torch.randn(512, 1024, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    packed, state = quantize_4bit(torch.randn(1024, 1024, device="cuda", dtype=torch.bfloat16), quant_type="nf4")
    y = F.linear(x, dequantize_4bit(packed, state)).view(1, 8, 512, 128)
    F.scaled_dot_product_attention(y, y, y, is_causal=True).sum().backward()
    if "WORLD_SIZE" in os.environ:
        torch.distributed.init_process_group("nccl", device_id=torch.device("cuda", 0))
        parts = [torch.empty(2**20, device="cuda") for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_reduce(torch.ones(2**20, device="cuda"))
        torch.distributed.all_gather(parts, torch.ones(2**20, device="cuda"))
    torch.cuda.synchronize()
    print(torch.cuda.memory_reserved(), flush=True)
    sys.stdin.read()
    os._exit(0)


def used() -> int:
    """Bytes of the first GPU that the driver says are taken."""
    import pynvml

    pynvml.nvmlInit()
    try:
        return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).used)
    finally:
        pynvml.nvmlShutdown()


def beyond(ranks: int) -> int:
    """Bytes of that many processes together."""
    before = used()
    processes = []
    for rank in range(ranks):
        own = {"RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": "0", "NCCL_HOSTID": f"host{rank}"}
        own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29611", **ONE_CARD}
        environment = {**os.environ, **(own if ranks > 1 else {})}
        argv = [sys.executable, "-m", "tests.gpu.contexts", "hold"]
        processes.append(
            subprocess.Popen(argv, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
    reserved = [int(p.stdout.readline()) for p in processes if p.stdout]
    time.sleep(0.5)
    found = used() - before - sum(reserved)
    for process in processes:
        process.communicate("")
    return found


if __name__ == "__main__":
    if "hold" in sys.argv:
        hold()
    else:
        print({f"{n} processes": f"{beyond(n) / 1e9:.2f} GB" for n in (1, 2, 4)})
