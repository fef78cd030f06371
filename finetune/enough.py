"""Is LoRA enough? The same model and data by the old habit, by LoRA and QLoRA as they should be, and whole, in turn.

Covers: which runs these are, which of them this machine can do and how long each takes, queueing them as a group. Does
not cover: what came of them (enough_result.py). Each run gets the learning rate of its own method (rates.py); steps,
batch, length, seed and held-out set are the person's and the same for all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from assets.errors import UserError
from assets.words import Words
from finetune import gpu, groups, methods, outlook, plan, preview, rates
from finetune.groups import Group, LeftOut, Member
from finetune.memory import GIB, Shape
from finetune.services import TrainServices
from finetune.shapes import shape_of
from finetune.spec import LoraSpec, TrainSpec
from finetune.spec_parts import BudgetSpec

ROLES: dict[str, dict[str, Any]] = {
    "small": {"method": "lora", "lora": LoraSpec(8, 16, targets=rates.QV)},
    "wide": {"method": "lora", "lora": LoraSpec(64, 128)},
    "qlora": {"method": "qlora", "lora": LoraSpec(64, 128)},
    "full": {"method": "full", "lora": LoraSpec()},
}
"""Role -> what is changed in the run of the form, in the order in which they run."""
FEW_STEPS = 60  # fewer say little about a method
EXAMPLE = Path("workspace/jobs/my-run")


@dataclass(frozen=True)
class Wish:
    """One run that this machine can do. ``span`` is seconds, least and most; None where nobody knows."""

    role: str
    spec: TrainSpec
    span: tuple[float, float] | None
    steps: int | None
    disk: int
    processes: int = 1


@dataclass(frozen=True)
class Offer:
    wishes: tuple[Wish, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def short(self) -> int | None:
        """The steps of runs that are too short to judge by; None for longer ones."""
        steps = min((wish.steps for wish in self.wishes if wish.steps is not None), default=None)
        return steps if steps is not None and steps < FEW_STEPS else None


def total(spans: Sequence[tuple[float, float] | None]) -> tuple[float, float] | None:
    """Seconds of runs one after the other; None when one of them is not known."""
    known = [span for span in spans if span is not None]
    return (sum(low for low, _ in known), sum(high for _, high in known)) if len(known) == len(spans) else None


def check(spec: TrainSpec) -> None:
    """UserError("enough.…") for a wish that full fine-tuning, or a fair comparison, has no place for."""
    if spec.objective != "sft":
        raise UserError("enough.sft_only", objective=spec.objective.upper())
    if spec.start:
        raise UserError("enough.start")
    if spec.budget != BudgetSpec():
        raise UserError("enough.budget")


def spec_for(role: str, spec: TrainSpec, shape: Shape) -> TrainSpec:
    """The form's run by another method, at that method's rate, with one checkpoint to go on from. UserErrors of what does not
    go together."""
    changes = dict(ROLES[role])
    changes["lora"] = replace(changes["lora"], dropout=0.0 if role == "full" else spec.lora.dropout)
    return rates.advised(replace(spec, watch=replace(spec.watch, keep=1), **changes), shape)


def offer(spec: TrainSpec, services: TrainServices, now: float) -> Offer:
    """What can be run here, and what cannot with the reason. UserErrors of the data, of ``check``, and "enough.no_heldout"."""
    check(spec)
    reading = services.readings.get(spec)
    preview.check(reading, spec)
    if not reading.source.heldout:
        raise UserError("enough.no_heldout")
    desk = _Desk(services, gpu.read(services.workspace.root), shape_of(services.workspace, spec.model), now)
    wishes: list[Wish] = []
    left_out: list[LeftOut] = []
    for role in ROLES:
        try:
            wishes.append(desk.wish(role, spec_for(role, spec, desk.shape), wishes))
        except UserError as error:
            left_out.append(LeftOut(role, error.key, error.values))
    return Offer(tuple(desk.alike(wishes)), tuple(left_out))


@dataclass(frozen=True)
class _Desk:
    """What every run of an offer is planned with."""

    services: TrainServices
    machine: gpu.Machine
    shape: Shape
    now: float

    def wish(self, role: str, spec: TrainSpec, before: Sequence[Wish]) -> Wish:
        """UserError when it cannot be. The runs ``before`` it fetch the model and fill the disk."""
        methods.check(spec, self.shape)
        made = plan.make(spec, self.machine, self.shape, EXAMPLE)
        methods.check_room(spec, made)
        if made.fit == "too_big":
            have = max(0, made.available)
            raise UserError("enough.too_big", need=f"{made.total / GIB:.1f}", have=f"{have / GIB:.1f}")
        seen = outlook.look(spec, made, self.shape, self.machine, self.services, self.now)
        disk = seen.needs.disk - (seen.needs.download if before else 0)
        free = seen.needs.free - sum(one.disk for one in before)
        if disk > free:
            raise UserError("enough.no_disk", need=f"{disk / GIB:.1f}", have=f"{max(0, free) / GIB:.1f}")
        fetching = (0.0, 0.0) if before else seen.needs.seconds
        span = None if seen.span is None else (seen.span[0] + fetching[0], seen.span[1] + fetching[1])
        return Wish(role, spec, span, seen.forecast.steps if seen.forecast else None, disk, made.processes)

    def alike(self, wishes: Sequence[Wish]) -> list[Wish]:
        """With as many conversations in a step for all: a method that fits on fewer GPUs collects more of them on each."""
        most = max((one.processes for one in wishes), default=1)
        out: list[Wish] = []
        for one in wishes:
            schedule = one.spec.schedule
            accumulation = round(schedule.accumulation * most / one.processes)
            if accumulation == schedule.accumulation:
                out.append(one)
                continue
            spec = replace(one.spec, schedule=replace(schedule, accumulation=accumulation))
            out.append(self.wish(one.role, spec, out))
        return out


def queue(found: Offer, roles: Collection[str], request: str, services: TrainServices, words: Words) -> Group:
    """Queue the offered runs of these roles as one group, whose first begins when its devices are free. The same
    ``request`` gives the group that it made before. UserError("enough.few") for fewer than two."""
    chosen = [wish for wish in found.wishes if wish.role in roles]
    if len(chosen) < 2:
        raise UserError("enough.few")
    workspace = services.workspace
    group_id = groups.new_id(request)
    with groups.guard(workspace):
        if (known := groups.read(workspace, group_id)) is not None:
            return known
        unticked = [LeftOut(w.role, "enough.unticked") for w in found.wishes if w not in chosen]
        left_out = (*found.left_out, *unticked)
        members: list[Member] = []
        group = groups.made(group_id, chosen[0].spec.name, (), left_out)
        for wish in chosen:
            members.append(Member(wish.role, _create(wish, group_id, services, words)))
            group = replace(group, members=tuple(members))
            groups.save(workspace, group)  # after each: what is queued is known even if the disk fills up now
    return group


def _create(wish: Wish, group_id: str, services: TrainServices, words: Words) -> str:
    """The id of the run."""
    folder = services.jobs.new_folder()
    spec = replace(wish.spec, name=f"{wish.spec.name} · {words(f'enough.role.{wish.role}')}")
    shape = shape_of(services.workspace, spec.model)
    made = plan.make(spec, gpu.read(services.workspace.root), shape, folder)
    return services.jobs.create(spec, made, folder, f"{group_id}-{wish.role}", group_id).id
