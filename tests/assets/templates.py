"""Tiny checkpoints' tokenizers for tests: real chat templates on tokenizers trained in a moment.

Llama and ChatML kinds are byte-level BPE; Gemma kinds are BPE with byte fallback, as the real ones are. The templates
come from the installed trl package, except the starter's own, which stands here.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from assets.chat import PLAIN_TEMPLATE, ChatFormat, Message

SENTENCES = [
    "오늘은 마음이 힘들어요. 그래도 괜찮아요, 천천히 이야기해 주세요.",
    "면접에 떨어져서 속상해요. 많이 애쓰셨네요.",
    "하늘은 왜 파란가요? 짧은 파장의 빛이 더 많이 흩어지기 때문이에요.",
    "The sky is blue because short waves scatter more. You are a helpful assistant.",
    "user\nmodel\nassistant\nsystem\n\nUser:\nAssistant:\n",
]
STARTER_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>"]
GEMMA = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

# kind: (special tokens, bos, eos, end of turn)
KINDS: dict[str, tuple[list[str], str | None, str, str]] = {
    "llama3": (LLAMA, "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"),
    "llama3_1": (LLAMA, "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"),
    "gemma": (GEMMA, "<bos>", "<eos>", "<end_of_turn>"),
    "gemma3": (GEMMA, "<bos>", "<eos>", "<end_of_turn>"),
    "chatml": (CHATML, None, "<|im_end|>", "<|im_end|>"),
    "plain": (CHATML, None, "<|endoftext|>", "<|endoftext|>"),
}


SINGLE = ("오늘은 마음이 힘들어요.", "그래도 괜찮아요, 천천히 이야기해 주세요. 🧑‍🚀 뷁!")
MULTI = (
    *SINGLE,
    "하늘은 왜 파란가요?\n\n궁금해요 ㅠㅠ",
    "Because…  짧은 파장의 빛이\n\n더 많이 흩어져요 👍🏽",
    "고마워요",
    "뭘요.",
)


def talk(*contents: str) -> list[Message]:
    """A conversation that the user begins."""
    roles = itertools.cycle(["user", "assistant"])
    return [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]


def learnt(chat: ChatFormat, messages: list[Message], system: str | None = None) -> str:
    """The text of the trained tokens."""
    result = chat.encode_training(messages, system)
    assert len(result.ids) == len(result.trained)
    return str(chat.tokenizer.decode([token for token, on in zip(result.ids, result.trained, strict=True) if on]))


def template(kind: str) -> str:
    """The Jinja text of a kind, or of any other template that trl carries."""
    own = {"chatml": STARTER_TEMPLATE, "plain": PLAIN_TEMPLATE}
    if kind in own:
        return own[kind]
    spec = importlib.util.find_spec("trl")
    assert spec is not None and spec.submodule_search_locations
    return (Path(spec.submodule_search_locations[0]) / "chat_templates" / f"{kind}.jinja").read_text(encoding="utf-8")


def make(folder: Path, kind: str, jinja: str | None = None) -> Path:
    """Write tokenizer.json, tokenizer_config.json, config files and, unless it is "", the chat template."""
    special, bos, eos, _ = KINDS[kind]
    tokenizer = _byte_fallback(special) if special is GEMMA else _byte_level(special)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos, **({"bos_token": bos} if bos else {})}
    _write(folder / "tokenizer_config.json", config)
    _write(folder / "generation_config.json", {"eos_token_id": tokenizer.token_to_id(eos)})
    jinja = template(kind) if jinja is None else jinja
    if jinja:
        (folder / "chat_template.jinja").write_text(jinja, encoding="utf-8")
    return folder


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def _byte_level(special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def _byte_fallback(special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    words = pre_tokenizers.Split(" ", "merged_with_previous")
    # While it is trained lines stay apart: like the real one it has no token that joins a line's end to a letter.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split("\n", "isolated"), words])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    trainer = trainers.BpeTrainer(vocab_size=250, special_tokens=special, limit_alphabet=100, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.pre_tokenizer = words
    # Byte tokens are ordinary entries of the vocabulary, which no trainer adds.
    data = json.loads(tokenizer.to_str())
    vocabulary = data["model"]["vocab"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    return Tokenizer.from_str(json.dumps(data))
