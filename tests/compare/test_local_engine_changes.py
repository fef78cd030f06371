"""What tuning changed, against the same figures from stock transformers and peft."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from assets.chat import ChatFormat
from assets.errors import UserError
from assets.files import Workspace
from compare.engine import Arm, Changes, ChangesAsked, LoadSpec, Sampling
from compare.local_engine import LocalEngine
from finetune import starter
from tests.models import make_adapter, make_model
from tests.proof.stock import Stock

TURNS = [{"role": "user", "content": "오늘 어땠어요?"}]
ANSWERS = {"a": "좋은 하루였어요. 정말이에요!", "b": "좋은 하루, 정말 좋았어요."}
REFERENCE = "괜찮은 하루였어요."


def measure(base: Path, adapter: Path, tmp_path: Path, asked: ChangesAsked, device: str = "auto") -> Changes:
    engine = LocalEngine(Workspace(tmp_path).prepare())
    list(engine.load(LoadSpec((Arm("a", str(base)), Arm("b", str(base), str(adapter))), quantise=False, device=device)))
    (found,) = engine.changes(asked)
    return found


def directly(base: Path, adapter: Path, prompt: list[int], answer: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities [n, vocabulary] at the answer's places: (base alone, tuned alone)."""
    found = []
    for folder in (None, adapter):
        model = Stock(base, folder, "float32").model
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([[*prompt, *answer]]), use_cache=False).logits[0]
        found.append(logits[len(prompt) - 1 : -1].float().log_softmax(-1))
    return found[0], found[1]


def assert_equal_to_direct(base: Path, adapter: Path, found: Changes, reference: str, within: float) -> None:
    chat = ChatFormat.from_folder(base)
    prompt = chat.encode_prompt(TURNS)
    answer = chat.tokenizer.encode(ANSWERS["b"], add_special_tokens=False)
    plain, tuned = directly(base, adapter, prompt, answer)
    nats = (tuned.exp() * (tuned - plain)).sum(-1)
    torch.testing.assert_close(torch.tensor([t.nats for t in found.tokens]), nats, atol=within, rtol=within)
    own = torch.tensor(answer)[:, None]
    for name, logs in (("base", plain), ("tuned", tuned)):
        chances = torch.tensor([getattr(t, name) for t in found.tokens])
        torch.testing.assert_close(chances, logs.gather(1, own)[:, 0].exp(), atol=within, rtol=within)
    assert "".join(t.text for t in found.tokens) == ANSWERS["b"]
    assert found.perplexity is not None
    right = chat.tokenizer.encode(reference, add_special_tokens=False)
    for mine, logs in zip(found.perplexity, directly(base, adapter, prompt, right), strict=True):
        loss = torch.nn.functional.nll_loss(logs, torch.tensor(right))
        assert mine == pytest.approx(float(loss.exp()), rel=50 * within)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("changes")
    base = make_model(root / "base", "gemma2")
    return base, make_adapter(base, root / "tuned")


def test_figures_equal_a_direct_computation(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    found = measure(*tiny, tmp_path, ChangesAsked("a", "b", TURNS, None, ANSWERS, REFERENCE))
    assert_equal_to_direct(*tiny, found, REFERENCE, 1e-4)
    same = len("좋은 하루".encode())
    assert found.parted == same and max(t.nats for t in found.tokens) > 0.01


def test_equal_and_shorter_and_empty_answers(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    def parted(base: str, tuned: str) -> int | None:
        return measure(*tiny, tmp_path, ChangesAsked("a", "b", TURNS, None, {"a": base, "b": tuned})).parted

    assert parted("같아요", "같아요") is None
    assert parted("abc", "ab") == 2 and parted("ab", "abc") == 2 and parted("abc", "") == 0
    empty = measure(*tiny, tmp_path, ChangesAsked("a", "b", TURNS, None, {"a": "가", "b": ""}))
    assert empty.tokens == () and empty.perplexity is None


def test_no_answer_is_disturbed(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    base, adapter = tiny
    engine = LocalEngine(Workspace(tmp_path).prepare())
    with pytest.raises(UserError, match="not_loaded"):
        engine.changes(ChangesAsked("a", "b", TURNS, None, ANSWERS))
    list(engine.load(LoadSpec((Arm("a", str(base)), Arm("b", str(base), str(adapter))), quantise=False)))
    turns, greedy = {"a": TURNS, "b": TURNS}, Sampling(temperature=0, max_new_tokens=12)
    before = list(engine.stream(turns, None, greedy))
    held = engine._groups[0].ready.held
    assert list(engine.changes(ChangesAsked("a", "b", TURNS, None, ANSWERS, REFERENCE)))
    assert engine._groups[0].ready.held == held
    after = list(engine.stream(turns, None, greedy))
    assert [getattr(e, "text", e.arm) for e in before] == [getattr(e, "text", e.arm) for e in after]
    with pytest.raises(UserError, match="prompt_too_long"):
        list(engine.changes(ChangesAsked("a", "b", TURNS, None, {"a": "", "b": "가" * 2000})))


def test_arms_of_different_bases_cannot_be_measured(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    other = make_model(tmp_path / "other", "llama")
    engine = LocalEngine(Workspace(tmp_path).prepare())
    list(engine.load(LoadSpec((Arm("a", str(tiny[0])), Arm("b", str(other))), quantise=False)))
    with pytest.raises(UserError, match="not_comparable"):
        engine.changes(ChangesAsked("a", "b", TURNS, None, ANSWERS))


def test_it_can_be_cancelled_between_pieces(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    base, adapter = tiny
    engine = LocalEngine(Workspace(tmp_path).prepare())
    list(engine.load(LoadSpec((Arm("a", str(base)), Arm("b", str(base), str(adapter))), quantise=False)))
    long = {"a": "", "b": "가나다라" * 40}
    asked = ChangesAsked("a", "b", TURNS, None, long)
    passes: list[None] = []

    def cancel(*_: object) -> None:
        passes.append(None)
        if len(passes) == 2:
            engine.cancel()

    hook = engine._groups[0].ready.model.model.register_forward_pre_hook(cancel)
    assert list(engine.changes(asked)) == [] and len(passes) == 2
    hook.remove()
    (found,) = engine.changes(asked)
    assert len(found.tokens) == len(long["b"].encode())


@pytest.mark.slow
def test_figures_on_the_starter_equal_a_direct_computation(tmp_path: Path) -> None:
    base = starter.make(Workspace(Path(__file__).resolve().parents[2] / "workspace").prepare())
    adapter = make_adapter(base, tmp_path / "tuned", lora_alpha=16)
    found = measure(base, adapter, tmp_path, ChangesAsked("a", "b", TURNS, None, ANSWERS, REFERENCE))
    assert_equal_to_direct(base, adapter, found, REFERENCE, 2e-3)
