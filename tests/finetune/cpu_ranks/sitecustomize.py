"""On the path of test processes only: FSDP2 over gloo, and accidents that tests ask for.

accelerate leaves FSDP out on machines without an accelerator; here it takes a gloo world for one. Python imports this
file at start in every process whose PYTHONPATH holds its folder.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any


def shard_on_cpu() -> None:
    import accelerate.state as state
    from accelerate.utils import DistributedType

    original = state.AcceleratorState.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        plugin = kwargs.get("fsdp_plugin")
        if plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.FSDP
            if self._mixed_precision != "no":
                plugin.set_mixed_precision(self._mixed_precision)
            self.fsdp_plugin = plugin
            state.PartialState._shared_state["distributed_type"] = self.distributed_type

    state.AcceleratorState.__init__ = init


def flip_a_byte() -> None:
    """In one layer of one rank, once its hash was taken and before anything is sharded or broadcast."""
    import torch

    from finetune import train_canary

    original = train_canary.Canary.__init__

    def init(self: Any, model: Any, report: Any) -> None:
        original(self, model, report)
        layers = list(train_canary.quantised_layers(model).values())
        layers[len(layers) // 2].weight.data.reshape(-1).view(torch.uint8)[-1] ^= 1

    train_canary.Canary.__init__ = init


def at_step(wanted: int, action: Any) -> None:
    from finetune import train_watch

    original = train_watch.Watch.on_step_begin

    def begin(self: Any, args: Any, state: Any, *rest: Any, **kwargs: Any) -> None:
        if state.global_step == wanted:
            action()
        original(self, args, state, *rest, **kwargs)

    train_watch.Watch.on_step_begin = begin


def poison(wanted: int) -> None:
    """Weights that are no numbers, from that step on."""
    from finetune import train_watch

    original = train_watch.Watch.on_step_begin

    def begin(self: Any, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step == wanted:
            for parameter in model.parameters():
                if parameter.requires_grad:
                    getattr(parameter, "to_local", lambda p=parameter: p.data)().detach().fill_(float("nan"))
        original(self, args, state, control, model=model, **kwargs)

    train_watch.Watch.on_step_begin = begin


def run_out_of_memory(wanted: int) -> None:
    """From that step on there is memory for one conversation at a time; the others fail where the loss is computed."""
    import torch

    from finetune import train_watch
    from finetune.train_memory import decoder

    original = train_watch.Watch.on_step_begin

    def refuse(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 300.00 MiB. GPU 0 has a total capacity of")

    def begin(self: Any, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step == wanted and args.per_device_train_batch_size > 1:
            decoder(model).register_forward_hook(refuse)
        original(self, args, state, control, model=model, **kwargs)

    train_watch.Watch.on_step_begin = begin


def hang_at_load() -> None:
    from finetune import train_trainer

    def build(*args: Any) -> Any:
        time.sleep(600)

    train_trainer.build = build


def touch_in(method: str) -> None:
    """Leave a stop request in the middle of a step, an evaluation or a save."""
    from finetune import train_watch

    original = getattr(train_watch.Watch, method)

    def seen(self: Any, args: Any, state: Any, *rest: Any, **kwargs: Any) -> None:
        if state.global_step:
            Path(args.output_dir).with_name("stop").touch()
        original(self, args, state, *rest, **kwargs)

    setattr(train_watch.Watch, method, seen)


def fail_in(method: str) -> None:
    """In the second evaluation or save, counted without the evaluation at the start."""
    from finetune import train_watch

    original = getattr(train_watch.Watch, method)

    def seen(self: Any, args: Any, state: Any, *rest: Any, **kwargs: Any) -> None:
        if state.global_step >= 4:
            fail()
        original(self, args, state, *rest, **kwargs)

    setattr(train_watch.Watch, method, seen)


def fail() -> None:
    raise ZeroDivisionError("this rank fails")


def other_data() -> None:
    """As on a machine whose file is not the one that the others have."""
    from finetune import train_resume

    original = train_resume.origin

    def origin(*args: Any) -> Any:
        made = original(*args)
        made["same"]["data"] = "other"
        return made

    train_resume.origin = origin


def begin() -> None:
    if os.environ.get("NARANHI_TEST_CPU_FSDP") == "1" and os.environ.get("NARANHI_TEST_ACCIDENT") != "all:whole":
        shard_on_cpu()
    rank, accident = os.environ.get("NARANHI_TEST_ACCIDENT", ":").split(":", 1)
    if rank not in (os.environ.get("RANK", "0"), "all"):
        return
    name, _, value = accident.partition("=")
    if name == "flip":
        flip_a_byte()
    elif name == "fail" and value.startswith("on_"):
        fail_in(value)
    elif name == "fail":
        at_step(int(value), fail)
    elif name == "kill":
        at_step(int(value), lambda: os.kill(os.getpid(), signal.SIGKILL))
    elif name == "other":
        other_data()
    elif name == "poison":
        poison(int(value))
    elif name == "memory":
        run_out_of_memory(int(value))
    elif name == "hang":
        hang_at_load()
    elif name == "touch":
        touch_in(value)


if "RANK" in os.environ or "NARANHI_TEST_ALONE" in os.environ:
    begin()
