from __future__ import annotations

import pytest

from compare.markup import html


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("안녕\n하세요", "<p>안녕<br>하세요</p>"),
        ("하나\n\n둘", "<p>하나</p><p>둘</p>"),
        ("**굵게** 그리고 *기울임*", "<p><strong>굵게</strong> 그리고 <em>기울임</em></p>"),
        ("2 * 3 * 4", "<p>2 * 3 * 4</p>"),
        ("`a*b*c`", "<p><code>a*b*c</code></p>"),
        ("```py\nx < 1\n```", "<pre><code>x &lt; 1</code></pre>"),
        ("---", "<hr>"),
    ],
)
def test_the_marks_chat_models_use(text: str, expected: str) -> None:
    assert html(text) == expected


def test_lists_keep_their_numbers() -> None:
    made = html("1. 하나\n3. 셋\n  - 안쪽")
    assert "<i>1.</i>" in made and "<i>3.</i>" in made and "n-md-in" in made


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "![x](http://a/b.png)", "[x](javascript:alert(1))", "<img src=x onerror=y>"]
)
def test_nothing_can_be_run_or_loaded(text: str) -> None:
    made = html(text)
    assert "<script" not in made and "<img" not in made and "<a" not in made


def test_growing_text_looks_as_it_will() -> None:
    assert html("그 **마음", growing=True) == "<p>그 <strong>마음</strong></p>"
    assert html("그 **", growing=True) == "<p>그 </p>"
    assert html("```\nx", growing=True) == "<pre><code>x</code></pre>"
    assert html("그 **마음") == "<p>그 **마음</p>"
