"""The data room as a whole: one result whatever the file, no torch, every sentence in both languages."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from string import Formatter

import pytest

from assets.words import STRINGS
from finetune import data
from tests.finetune.data_samples import PAIRS, converted, table, write

ROOT = Path(data.__file__).parent


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet", ".xlsx"])
def test_every_format_gives_the_same_examples(tmp_path: Path, suffix: str) -> None:
    read = data.read_file(write(tmp_path / f"상담 자료{suffix}", PAIRS))
    assert read.rows == PAIRS
    assert read.columns == ["질문", "답변", "번호"]
    mapping = data.guess(read)
    assert mapping == data.Mapping("qa", {"question": "질문", "answer": "답변"})
    assert data.data_sha256(data.convert(read, mapping).examples) == data.data_sha256(converted(*PAIRS).examples)


def test_torch_is_never_imported(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", PAIRS)
    code = (
        "import sys; from finetune.data import *\n"
        f"t = read_file({str(path)!r}); c = convert(t, guess(t)); describe(c); similar(c.examples, prompts_from(t))\n"
        "class Off:\n"
        "    def listing(self, dataset, revision):\n"
        "        from huggingface_hub.errors import OfflineModeIsEnabled\n"
        "        raise OfflineModeIsEnabled('off')\n"
        "try: read_hub('a/b', 'train', fetch=Off())\n"
        "except Exception as error: assert error.key == 'data.hub_offline', error\n"
        "assert not {'torch', 'pandas', 'datasets', 'gradio'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=ROOT.parent)


def test_a_hundred_thousand_rows_take_seconds() -> None:
    rows = [{"Q": f"{number}번째 질문이에요, 어떡하죠?", "A": f"{number}번째 답이에요."} for number in range(100_000)]
    read = table(*rows)
    start = time.process_time()
    result = data.convert(read, data.guess(read))
    data.describe(result)
    assert len(result.examples) == 100_000
    assert time.process_time() - start < 15  # about 3 s on two slow cores


def strings(language: str) -> dict[str, str]:
    texts: dict[str, str] = json.loads((STRINGS / language / "data.json").read_text(encoding="utf-8"))
    return texts


def test_both_languages_say_the_same_things() -> None:
    korean, english = strings("ko"), strings("en")
    assert korean.keys() == english.keys()
    for key, text in korean.items():
        names = [{name for _, name, _, _ in Formatter().parse(t) if name} for t in (text, english[key])]
        assert names[0] == names[1], key
        assert key.startswith("data.")


def test_every_key_in_the_code_has_a_sentence() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("data*.py"))
    keys = set(re.findall(r'[^f]"(data\.[a-z_.]+)"', code)) - {"data.drop."}
    texts = strings("ko")
    assert len(keys) > 50 and keys <= texts.keys()
    drops = {key for key in keys if key.startswith("data.drop.")} | {"data.drop.empty_assistant"}
    assert {key.replace("drop", "nothing_left") for key in drops} <= texts.keys()
    for shape, fields in (*data.FIELDS.items(), ("prompts", data.PROMPT_FIELDS)):
        assert f"data.shape.{shape}" in texts
        assert {f"data.field.{field}" for field in fields} <= texts.keys()
        assert {f"data.needs.{field}" for field, needed in fields.items() if needed} <= texts.keys()
