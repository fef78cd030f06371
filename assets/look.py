"""How the page looks and what runs in it: gradio's theme in our colours, style sheets, scripts.

Covers: what ``launch`` is given. Does not cover: the colours and rules themselves (theme.css, rate.css).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

ASSETS = Path(__file__).parent
STYLES = [ASSETS / "theme.css", ASSETS / "rate.css"]
SCRIPTS = ("language.js", "keys.js", "acts.js", "rate.js")


def theme() -> Any:
    """Gradio's plainest theme in our colours; the rest is theme.css."""
    fonts = [
        "Pretendard Variable",
        "Pretendard",
        "Apple SD Gothic Neo",
        "Noto Sans KR",
        "Noto Sans CJK KR",
        "Malgun Gothic",
        "system-ui",
        "sans-serif",
    ]
    base = gr.themes.Base(
        primary_hue="indigo",
        neutral_hue="stone",
        radius_size="lg",
        font=fonts,
        font_mono=["D2Coding", "ui-monospace", "monospace"],
    )
    alike = {
        "body_background_fill": "var(--n-paper)",
        "body_text_color": "var(--n-ink)",
        "body_text_color_subdued": "var(--n-soft)",
        "background_fill_primary": "var(--n-card)",
        "background_fill_secondary": "var(--n-wash)",
        "block_background_fill": "transparent",
        "block_border_width": "0px",
        "block_label_background_fill": "transparent",
        "block_label_text_color": "var(--n-soft)",
        "block_title_text_color": "var(--n-soft)",
        "block_info_text_color": "var(--n-soft)",
        "border_color_primary": "var(--n-line)",
        "border_color_accent": "var(--n-indigo)",
        "color_accent_soft": "var(--n-indigo-wash)",
        "input_background_fill": "var(--n-card)",
        "input_border_color": "var(--n-line)",
        "input_border_color_focus": "var(--n-indigo)",
        "checkbox_background_color_selected": "var(--n-indigo)",
        "checkbox_border_color_selected": "var(--n-indigo)",
        "panel_background_fill": "transparent",
        "slider_color": "var(--n-indigo)",
    }
    return base.set(
        **alike,
        **{f"{name}_dark": value for name, value in alike.items()},
        block_title_text_size="*text_sm",
        block_padding="4px 2px",
        block_shadow="none",
        color_accent="var(--n-indigo)",
        input_border_width="1px",
    )


def head() -> str:
    """The scripts of the page: the language of a first visit, the switch, voting by keyboard, the rater's page."""
    scripts = [(ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS]
    return "".join(f"<script>{script}</script>" for script in scripts)
