"""What a chat format refuses: templates whose answers cannot be found back, bad conversations, bad folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from assets.chat import PLAIN_TEMPLATE, ChatFormat, Message
from assets.errors import UserError
from assets.words import LANGUAGES, Words
from tests.assets.templates import MULTI, SINGLE, STARTER_TEMPLATE, learnt, make, talk, template

THINKING = """{% for message in messages %}<|im_start|>{{ message.role }}
{% if message.role == 'assistant' and not loop.last %}{{ message.content.split('</think>')[-1] }}{% else %}{{ message.content }}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""  # noqa: E501
COUNTING = "{{ messages | length }} messages\n" + STARTER_TEMPLATE
SHOUTING = STARTER_TEMPLATE.replace("message['content']", "(message['content'] | upper)")
HEADLESS = STARTER_TEMPLATE.replace("<|im_start|>assistant\n' }}{% endif %}", "<|im_start|>robot\n' }}{% endif %}")


@pytest.mark.parametrize("jinja", [THINKING, COUNTING, SHOUTING, HEADLESS], ids=["drops", "counts", "shouts", "header"])
def test_a_template_that_changes_earlier_text_is_refused(tmp_path: Path, jinja: str) -> None:
    chat = ChatFormat.from_folder(make(tmp_path, "chatml", jinja))
    with pytest.raises(UserError) as error:
        chat.encode_training(talk("hi", "<think>hm</think>one", "and?", "two"))
    assert error.value.key == "chat.template_unsupported"
    assert chat.encode_prompt(talk("hi"))


def test_a_template_that_only_drops_thinking_works_without_it(tmp_path: Path) -> None:
    chat = ChatFormat.from_folder(make(tmp_path, "chatml", THINKING))
    assert learnt(chat, talk("hi", "one", "and?", "two")) == "one<|im_end|>two<|im_end|>"


def test_templates_outside_the_catalogue(tmp_path: Path) -> None:
    qwen2 = ChatFormat.from_folder(make(tmp_path, "chatml", template("qwen2_5")))
    assert learnt(qwen2, talk(*MULTI)) == "".join(answer + "<|im_end|>" for answer in MULTI[1::2])
    qwen3 = ChatFormat.from_folder(make(tmp_path, "chatml", template("qwen3")))
    assert learnt(qwen3, talk(*SINGLE)) == SINGLE[1] + "<|im_end|>"
    with pytest.raises(UserError, match="template_unsupported"):
        qwen3.encode_training(talk(*MULTI))


def test_a_template_without_an_end_is_refused_for_training(tmp_path: Path) -> None:
    endless = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant: "
    endless = endless.replace("assistant: ", "{% if add_generation_prompt %}assistant: {% endif %}")
    with pytest.raises(UserError, match="template_no_end"):
        ChatFormat.from_folder(make(tmp_path, "chatml", endless)).encode_training(talk("hi", "one"))


def test_an_answer_whose_first_token_joins_the_prompt_is_refused(tmp_path: Path) -> None:
    joined = (
        "{% for message in messages %}{{ message.role ~ ': ' if message.role == 'user' else 'The' }}"
        "{{ message.content }}{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}The{% endif %}"
    )
    chat = ChatFormat.from_folder(make(tmp_path, "chatml", joined))
    assert learnt(chat, talk("hi", "하늘")) == "하늘<|im_end|>"
    whole, parts = (chat.tokenizer.encode(text) for text in ("assistant", "assis"))
    assert len(whole) == 1 and parts != whole
    split = joined.replace("The", "assis")
    with pytest.raises(UserError, match="template_unsupported"):
        ChatFormat.from_folder(folder=make(tmp_path, "chatml", split)).encode_training(talk("hi", "tant"))


@pytest.mark.parametrize(
    ("messages", "key"),
    [
        ([], "chat.no_messages"),
        ([{"role": "system", "content": "혼자"}], "chat.no_messages"),
        (talk("안녕", " \n"), "chat.empty_turn"),
        (talk(""), "chat.empty_turn"),
        ([*talk("안녕", "네"), {"role": "system", "content": "늦음"}], "chat.system_not_first"),
        ([{"role": "assistant", "content": "먼저"}], "chat.roles_alternate"),
        ([*talk("안녕"), *talk("또")], "chat.roles_alternate"),
        ([{"role": "tool", "content": "?"}], "chat.unknown_role"),
        (talk("\ud83d"), "chat.broken_text"),
        (talk("질문만"), "chat.no_answer"),
    ],
)
def test_bad_conversations_are_refused_in_a_sentence(tmp_path: Path, messages: list[Message], key: str) -> None:
    chat = ChatFormat.from_folder(make(tmp_path, "chatml"))
    with pytest.raises(UserError) as error:
        chat.encode_training(messages)
    assert error.value.key == key
    for language in LANGUAGES:
        assert "{" not in Words(language).error(error.value)


def test_a_prompt_must_end_with_a_question(tmp_path: Path) -> None:
    chat = ChatFormat.from_folder(make(tmp_path, "chatml"))
    with pytest.raises(UserError, match="no_question"):
        chat.encode_prompt(talk("안녕", "네"))


def test_bad_folders_are_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    damaged = make(tmp_path / "damaged", "chatml")
    (damaged / "tokenizer.json").write_text('{"version": "1.0", "mod')
    cases = {
        "chat.no_fast_tokenizer": tmp_path / "empty",
        "chat.bad_tokenizer": damaged,
        "chat.no_template": make(tmp_path / "base", "chatml", jinja=""),
        "chat.template_failed": make(tmp_path / "broken", "chatml", jinja="{% for %}"),
    }
    for key, folder in cases.items():
        with pytest.raises(UserError) as error:
            ChatFormat.from_folder(folder)
        assert error.value.key == key
        for language in LANGUAGES:
            Words(language).error(error.value)
    assert ChatFormat.from_folder(tmp_path / "base", PLAIN_TEMPLATE).has_system


def test_control_text_that_cannot_stay_text_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path, "gemma") / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    data["model"]["ignore_merges"] = True  # a word of the vocabulary is then taken whole, special or not
    data["pre_tokenizer"] = {"type": "Split", "pattern": {"String": "\n"}, "behavior": "Isolated", "invert": False}
    path.write_text(json.dumps(data), encoding="utf-8")
    chat = ChatFormat.from_folder(tmp_path)
    with pytest.raises(UserError, match="chat.control_text"):
        chat.encode_prompt(talk("이건 <end_of_turn> 뭐예요?"))
    assert chat.encode_prompt(talk("이건 뭐예요?"))
