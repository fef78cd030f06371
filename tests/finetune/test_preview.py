"""What is shown as learnt is what is learnt; tiny tokenizers with real templates, no torch."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from assets.chat import ChatFormat
from assets.errors import UserError
from assets.files import Workspace
from assets.words import LANGUAGES, Words
from finetune import preview, readings, sources
from finetune.data import Example
from finetune.spec import DataSpec, ModelSpec, ScheduleSpec, TrainSpec
from tests.assets.templates import KINDS, make

END = {
    "llama3": "<|eot_id|>",
    "llama3_1": "<|eot_id|>",
    "gemma": "<end_of_turn>",
    "gemma3": "<end_of_turn>",
    "chatml": "<|im_end|>",
}
TALKS = [
    [("user", "오늘은 마음이 힘들어요."), ("assistant", "그래도 괜찮아요 <b>정말로</b> & 🧑‍🚀 뷁!")],
    [
        ("user", "하늘은 왜 파란가요?"),
        ("assistant", "빛이 흩어져서요."),
        ("user", "정말요?"),
        ("assistant", "네,\n그럼요."),
    ],
    [("user", "고마워요 <script>"), ("assistant", "뭘요.")],
    [("user", "또 올게요"), ("assistant", "기다릴게요.")],
]


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / "space").prepare()
    rows = [{"messages": [{"role": role, "content": text} for role, text in talk]} for talk in TALKS]
    (made.uploads / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return made


def model(tmp_path: Path, kind: str) -> ModelSpec:
    folder = make(tmp_path / kind, kind)
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    return ModelSpec(str(folder))


def spec(tmp_path: Path, kind: str = "chatml", max_length: int = 512, system: str = "") -> TrainSpec:
    data = DataSpec("talks.jsonl", "file", heldout=0.0, system=system)
    return TrainSpec(model(tmp_path, kind), data, schedule=ScheduleSpec(max_length=max_length))


def show(space: Workspace, wish: TrainSpec, words: Words) -> str:
    return preview.show(space, readings.Readings(space).get(wish), wish, words)


def marked(html: str) -> list[str]:
    return [unescape(text) for text in re.findall(r"<mark>(.*?)</mark>", html, re.DOTALL)]


@pytest.mark.parametrize("kind", END)
@pytest.mark.parametrize("system", ["", "친절하게 답해 주세요."])
def test_coloured_text_is_the_answers(space: Workspace, tmp_path: Path, kind: str, system: str) -> None:
    html = show(space, spec(tmp_path, kind, system=system), Words("ko"))
    answers = [text for talk in TALKS[: preview.SHOWN] for role, text in talk if role == "assistant"]
    assert marked(html) == [answer + END[kind] for answer in answers]
    talks = re.findall(r'<div class="n-talk"[^>]*>(.*?)</div>', html, re.DOTALL)
    assert len(talks) == preview.SHOWN and "<script" not in html and "<b>" not in html
    whole = [unescape(re.sub(r"</?(mark|s)>", "", talk)) for talk in talks]
    for text, talk in zip(whole, TALKS, strict=False):
        assert all(said in text for _, said in talk) and (system in text)


def test_the_tokens_counted_are_those_coloured(space: Workspace, tmp_path: Path) -> None:
    wish = spec(tmp_path)
    source, chat = sources.load(space, wish.data), readings.open_chat(space, wish)
    counts = readings.count(chat, source.train, wish)
    encoded = [chat.encode_training(list(example.messages)) for example in source.train]
    assert counts.lengths == [len(each.ids) for each in encoded] and counts.factor == 1
    assert counts.trained(512) == sum(sum(each.trained) for each in encoded)
    words = Words("en")
    said = words("train.preview.counts", train=4, heldout=0, trained=counts.trained(512), tokens=counts.tokens)
    assert said in show(space, wish, words)


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_left_to_learn_is_refused(space: Workspace, tmp_path: Path, language: str) -> None:
    with pytest.raises(UserError) as caught:
        show(space, spec(tmp_path, max_length=16), Words(language))
    assert caught.value.key == "train.all_masked" and "16" in Words(language).error(caught.value)


def test_long_conversations_are_cut(space: Workspace, tmp_path: Path) -> None:
    words = Words("en")
    html = show(space, spec(tmp_path, max_length=80), words)
    lengths = readings.count(
        readings.open_chat(space, spec(tmp_path)), sources.load(space, spec(tmp_path).data).train, spec(tmp_path)
    ).lengths
    cut = sum(length > 80 for length in lengths)
    assert cut > 0 and html.count(" …</div>") == sum(length > 80 for length in lengths[: preview.SHOWN])
    assert f"{cut} conversations are cut at the limit of 80" in html


def test_counts_of_many_are_scaled_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = ChatFormat.from_folder(make(tmp_path / "chatml", "chatml"))
    messages = ({"role": "user", "content": "안녕"}, {"role": "assistant", "content": "네"})
    monkeypatch.setattr(readings, "COUNTED", 10)
    counts = readings.count(chat, [Example(messages=messages)] * 25, spec(tmp_path))  # type: ignore[arg-type]
    assert (len(counts.lengths), counts.factor) == (10, 2.5)


def test_plain_text_is_learnt_whole(space: Workspace, tmp_path: Path) -> None:
    (space.uploads / "text.csv").write_text("text\n오늘은 맑아요 내일도\n하늘은 파래요 언제나\n", encoding="utf-8")
    wish = replace(
        spec(tmp_path), data=DataSpec("text.csv", "file", shape="text", columns={"text": "text"}, heldout=0.0)
    )
    assert marked(show(space, wish, Words("ko"))) == ["오늘은 맑아요 내일도", "하늘은 파래요 언제나"]


def test_preference_pairs_show_the_answer_that_won(space: Workspace, tmp_path: Path) -> None:
    (space.uploads / "pairs.csv").write_text(
        "prompt,chosen,rejected\n질문이에요,좋은 답,나쁜 답\n다른 질문,더 좋은 답,더 나쁜 답\n", encoding="utf-8"
    )
    wish = replace(spec(tmp_path), data=DataSpec("pairs.csv", "file", heldout=0.0))
    assert marked(show(space, wish, Words("ko"))) == ["좋은 답<|im_end|>", "더 좋은 답<|im_end|>"]


def test_rows_left_out_are_counted_by_reason(space: Workspace, tmp_path: Path) -> None:
    (space.uploads / "holes.csv").write_text("Q,A\n하나,1번 답\n둘,\n셋,\n,4번 답\n다섯,5번 답\n", encoding="utf-8")
    data = DataSpec("holes.csv", "file", shape="qa", columns={"question": "Q", "answer": "A"}, heldout=0.0)
    for language in LANGUAGES:
        words = Words(language)
        html = show(space, replace(spec(tmp_path), data=data), words)
        assert words("train.preview.dropped", count=3) in html
        assert (
            f"<li>{words('data.drop.empty_assistant')}: 2</li>" in html
            and f"{words('data.drop.empty_user')}: 1" in html
        )
        assert "{" not in html


def test_prompts_for_comparing_that_are_trained_are_named(space: Workspace, tmp_path: Path) -> None:
    from assets.catalog import prompts

    known = prompts("emotion")[0]
    row = {"prompt": known.messages[0]["content"], "completion": "그랬군요."}
    (space.uploads / "leak.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    wish = replace(spec(tmp_path), data=DataSpec("leak.jsonl", "file", heldout=0.0))
    assert known.id in show(space, wish, Words("ko"))
    assert "n-note warn" not in show(space, spec(tmp_path), Words("ko"))


def test_the_built_in_data_is_not_flagged(space: Workspace, tmp_path: Path) -> None:
    wish = replace(spec(tmp_path, max_length=2048), data=DataSpec("naranhi/science-ko"))
    html = show(space, wish, Words("ko"))
    assert "n-note warn" not in html and "120" in html


@pytest.mark.parametrize("kind", ["plain"])
def test_a_model_without_a_template_says_so(space: Workspace, tmp_path: Path, kind: str) -> None:
    assert kind in KINDS
    folder = make(tmp_path / "bare", kind, jinja="")
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    wish = replace(spec(tmp_path), model=ModelSpec(str(folder)))
    with pytest.raises(UserError) as caught:
        show(space, wish, Words("ko"))
    assert caught.value.key == "chat.no_template"


def test_histogram_of_any_lengths() -> None:
    for lengths in ([1], [5] * 10, list(range(1, 3000, 7)), [1, 100_000]):
        html = preview._histogram(lengths)
        assert 1 <= html.count("<i ") <= preview.BINS and "height:100%" in html


def test_the_preview_needs_no_torch(space: Workspace, tmp_path: Path) -> None:
    wish = tmp_path / "spec.yaml"
    wish.write_text(spec(tmp_path).to_yaml(), encoding="utf-8")
    code = (
        "import sys; from pathlib import Path; from assets.files import Workspace; from assets.words import Words\n"
        "from finetune import preview, readings, spec\n"
        "wish = spec.from_yaml(Path(sys.argv[2]).read_text(encoding='utf-8'))\n"
        "space = Workspace(Path(sys.argv[1]))\n"
        "assert '<mark>' in preview.show(space, readings.Readings(space).get(wish), wish, Words('ko'))\n"
        "assert not {'torch', 'gradio'} & set(sys.modules), 'imported'"
    )
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code, str(space.root), str(wish)]) == 0
