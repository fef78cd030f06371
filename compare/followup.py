"""After a round of training: the new adapter beside the one it went on from and their base, on prompts kept for judging.

Covers: a draft of that study, and the comparison's card with parent and child chosen. Does not cover: making answers and
collecting votes (the study room).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from assets.errors import UserError
from assets.words import Words
from compare import study_choice, tab_talk
from compare.services import CompareServices
from compare.study import Study
from compare.study_new import new_study

PER_SET = 40


def draft(services: CompareServices, names: Sequence[str], name: str, words: Words) -> Study:
    """A new study of the models ``names`` on the held-out part of every built-in set. UserErrors of choosing."""
    sets = [s for s in study_choice.prompt_sets(services.workspace) if s.value.startswith("builtin-")]
    prompts = study_choice.pick(sets, [s.value for s in sets], PER_SET, "heldout")
    candidates = study_choice.candidates(services.workspace, names)
    return services.studies.create(new_study(name, candidates, prompts, words))


def show(tab: Any, session: Any, room: Any, names: Sequence[str], request: gr.Request) -> dict[Any, Any]:
    """Updates of the comparison tab: ``names`` are base, parent and child; the last two are chosen to talk to, all three
    stand in a new study."""
    page, words = tab.page, tab.page.words
    shown: dict[Any, Any] = page.choose(session, names[1], names[2], request)
    try:
        child = study_choice.candidates(page.services.workspace, names[1:])[1]
        made = draft(
            page.services, names, words("pairs.followup", name=child.name or Path(names[2]).parent.name), words
        )
    except UserError as error:
        gr.Warning(words.error(error))
        return shown
    room.go(made.id)
    session.studying = session.role == "owner"
    room_shown: dict[Any, Any] = tab.study.page.show(room, request)
    return shown | tab_talk.paint_mode(page.talk, session, words) | room_shown
