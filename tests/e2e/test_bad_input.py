"""What people do wrong in the training form, in the browser: a sentence each, and nothing is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import App
from tests.e2e.test_loop import fill, open_page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def page(app: App, chromium: Any) -> Any:
    app.start()
    return open_page(chromium, app.url)


def upload(page: Any, path: Path) -> None:
    page.locator("#train-data label").nth(2).click()
    clear = page.locator("#train-upload button[aria-label='Clear'], #train-upload button[aria-label='지우기']")
    if clear.count():
        clear.first.click()
    page.locator("#train-upload input[type=file]").set_input_files(path)


def test_files_that_cannot_be_used_are_named(page: Any, tmp_path: Path) -> None:
    empty = tmp_path / "빈 파일.csv"
    empty.write_bytes(b"")
    upload(page, empty)
    page.locator("#train-preview .n-note.bad").get_by_text("비어 있어요").wait_for()


def test_a_cp949_file_from_excel_is_read_and_its_mapping_can_be_corrected(page: Any, tmp_path: Path) -> None:
    rows = "질문,답변\r\n" + "\r\n".join(
        f"오늘 기분이 {n}점이에요,똠얌 {n}그릇이면 괜찮은 하루네요" for n in range(1, 13)
    )
    file = tmp_path / "상담 기록.csv"
    file.write_bytes(rows.encode("cp949"))
    upload(page, file)
    page.locator("#train-preview").get_by_text("CP949", exact=False).wait_for()
    assert (
        page.locator("#train-columns textarea, #train-columns input").first.input_value()
        == "question=질문, answer=답변"
    )
    page.locator("#train-columns textarea, #train-columns input").first.fill("question=없는 열, answer=답변")
    page.locator("#train-columns textarea, #train-columns input").first.press("Enter")
    page.locator("#train-preview .n-note.bad").wait_for()


def test_numbers_out_of_range_and_unknown_models_are_named(page: Any) -> None:
    page.locator("#train-data label").nth(0).click()
    page.locator("#train-advanced .label-wrap").click()
    for value in ("0", "nan", "abc"):
        fill(page, "learning_rate", value)
        page.locator("#train-plan .n-note.bad").wait_for()
        assert page.locator("#train-start").is_disabled()
        fill(page, "learning_rate", "0.001")
        page.locator("#train-plan .n-note.good").wait_for()
    model = page.locator("#train-model input")
    for value in ("/no/such/folder", "../../etc", "nobody/nothing-at-all", "한글 이름"):
        model.fill(value)
        model.press("Enter")
        page.locator("#train-plan .n-note.bad").wait_for()
    model.fill("HuggingFaceTB/SmolLM2-135M-Instruct")
    model.press("Enter")
    page.locator("#train-plan .n-note.good").wait_for()
