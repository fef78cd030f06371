"""What an engine is: the questions the page may ask of one, and the events it answers with.

Covers: the protocol, what to load, how to sample, every event. Does not cover: any engine (local_engine.py, worker.py)
nor which answer stands on which side (trial.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from assets.errors import UserError

Message = Mapping[str, str]
Reason = Literal["stop", "length", "cancelled", "error"]

REMOTE = "remote"  # the device of a pair that answers on other machines
PHASES = (
    "engine.phase.start",
    "engine.phase.read",
    "engine.phase.quantise",
    "engine.phase.adapters",
    "engine.phase.check",
)


@dataclass(frozen=True)
class Arm:
    """One thing that answers. ``key`` is opaque; ``base`` a folder or Hub id; ``adapter`` one too, or nothing."""

    key: str
    base: str
    adapter: str | None = None


@dataclass(frozen=True)
class LoadSpec:
    """What to load. Arms of one base share one copy of it. ``templates``: an arm's key to its own Jinja text.

    ``device``: "auto", one by name, or several with commas between, over which every base is spread by layers.
    ``together`` False keeps one base in memory at a time, and their answers come one after the other.
    """

    arms: tuple[Arm, ...]
    quantise: bool = True
    device: str = "auto"
    templates: Mapping[str, str] = field(default_factory=dict)
    together: bool = True

    def __post_init__(self) -> None:
        keys = [arm.key for arm in self.arms]
        if not keys or len(set(keys)) < len(keys):
            raise ValueError(f"arms need different keys: {keys}")


@dataclass(frozen=True)
class Sampling:
    """How to draw tokens; the same for every arm. ``temperature`` 0 is greedy, ``top_k`` 0 and ``top_p`` 1 are off.

    ``top_p`` 0 keeps the best token alone; ``max_new_tokens`` 0 gives empty answers. UserError for impossible values.
    """

    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 0
    max_new_tokens: int = 256
    seed: int = 0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        for name, low in (("temperature", 0.0), ("top_p", 0.0), ("top_k", 0), ("max_new_tokens", 0), ("seed", 0)):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= low):
                raise UserError("engine.bad_sampling", name=name, value=value)
        if not (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            raise UserError("engine.bad_sampling", name="repetition_penalty", value=self.repetition_penalty)


@dataclass(frozen=True)
class Phase:
    """A stage of loading. ``key`` is one of PHASES, ``done`` a share from 0 to 1, or None if unknown."""

    key: str
    done: float | None = None


@dataclass(frozen=True)
class Delta:
    """More text of one answer, whole syllables only."""

    arm: str
    text: str


@dataclass(frozen=True)
class Done:
    """The end of one answer. ``error`` is a string key without placeholders. Seconds count from the request.

    ``tokens`` leaves the stop token out; ``tokens_per_second`` leaves the wait for the first token out.
    """

    arm: str
    reason: Reason
    tokens: int = 0
    seconds_to_first: float = 0.0
    tokens_per_second: float = 0.0
    error: str | None = None


@dataclass(frozen=True)
class ArmInfo:
    """What answers for one arm: proof for the rating's record. Revisions are a Hub commit or a digest of a folder.

    ``told`` is what a server said of itself, for an arm elsewhere: then nothing was proven and the rest is empty.
    """

    template_hash: str
    base_revision: str
    adapter_sha256: str | None
    trained_parameters: int
    told: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class PaneCheck:
    """Differences of logits on a fixed prompt (root mean square, relative to the spread of the logits).

    ``base_error``: base row of the joint pass against the model without any adapter. ``adapter_error``: adapter row of
    the joint pass against that adapter alone. ``difference``: what the least changing adapter changes. The errors are
    within ``tolerance``, and that is at most half of ``difference``. None where no arm has such a row.
    """

    base_error: float | None
    adapter_error: float | None
    difference: float | None
    tolerance: float


@dataclass(frozen=True)
class Loaded:
    """A loaded comparison. ``memory_bytes`` is the device memory held, or the process's own memory on a CPU.

    ``device`` names one device or, with commas, those over which the layers are spread. ``weights`` says what the bases
    are computed in: "nf4" or a dtype. ``held``: bytes by the lease's name of each GPU.
    """

    device: str
    memory_bytes: int
    arms: Mapping[str, ArmInfo]
    check: PaneCheck
    versions: Mapping[str, str]
    weights: str = ""
    held: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ChangesAsked:
    """Two arms of one base, a conversation that ends with a question, and what each of them answered to it.

    ``reference`` is a right answer to the same question, or empty.
    """

    base: str
    tuned: str
    turns: Sequence[Message]
    system: str | None
    answers: Mapping[str, str]
    reference: str = ""


@dataclass(frozen=True)
class TokenChange:
    """One token of the tuned answer. ``text`` is empty but for the last token of a letter.

    ``nats`` is KL(tuned ‖ base) where this token was drawn, over the whole vocabulary; ``base`` and ``tuned`` are the
    chances that each of them gave to this very token.
    """

    text: str
    nats: float
    base: float
    tuned: float


@dataclass(frozen=True)
class Changes:
    """What tuning changed in one answer.

    ``parted`` is the first token at which the two answers differ (len(tokens) when the tuned one only ends earlier),
    None when they are equal. ``perplexity`` is that of the reference answer under (base, tuned).
    """

    tokens: tuple[TokenChange, ...]
    parted: int | None
    perplexity: tuple[float, float] | None


class Engine(Protocol):
    """Answers for several arms at once. Closing an iterator early cancels the work behind it."""

    @property
    def loaded(self) -> Loaded | None: ...

    def load(self, spec: LoadSpec) -> Iterator[Phase | Loaded]:
        """Phases, then one Loaded. UserError for what a person can act on. What was loaded before is dropped."""
        ...

    def stream(
        self, turns: Mapping[str, Sequence[Message]], system: str | None, sampling: Sampling
    ) -> Iterator[Delta | Done]:
        """Answers to ``turns`` (arm key -> its conversation so far), interleaved; one Done per arm.

        UserError before any event when a conversation cannot be put to its model; later faults end in Done("error").
        """
        ...

    def changes(self, asked: ChangesAsked) -> Iterator[Changes]:
        """One Changes, from teacher-forcing the tuned arm's answer through both arms at once; none when cancelled. No
        answer is disturbed.

        UserError("engine.not_comparable") for arms of different bases, and those of ``stream``.
        """
        ...

    def cancel(self) -> None:
        """From any thread: end the running answers within one token. Nothing happens when none runs."""
        ...

    def rest(self) -> None:
        """Give all memory back until the next request, for which the same things are loaded again."""
        ...

    def unload(self) -> None:
        """Give all memory back and forget what was loaded."""
        ...
