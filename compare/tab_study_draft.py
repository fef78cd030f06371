"""From a template to the form of a new study, and from the form to a draft.

Covers: what a template and a language fill in, reading the fields, the estimate beside them. Does not cover: the
components (tab_study_form.py), the parts to choose from (study_choice.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import gradio as gr

from assets.catalog import Prompt
from assets.errors import UserError
from assets.split import is_heldout
from assets.words import Words
from compare import study_choice as choice
from compare import study_panel, views
from compare.candidates import options
from compare.criteria import criteria_for
from compare.desk import Candidate
from compare.engine import Sampling
from compare.services import CompareServices
from compare.study import Study
from compare.study_items import needed
from compare.study_new import default_questions, new_study
from compare.tab_setup import suggested
from compare.tab_study_form import FormPanel

_LEAST = 2  # models, for an estimate before any is chosen


def fill(panel: FormPanel, services: CompareServices, words: Words, key: str = "own") -> dict[Any, Any]:
    """The form as a template begins it."""
    workspace, pair = services.workspace, services.desk.pair
    begun = choice.template(workspace, key, pair)
    sets = choice.prompt_sets(workspace)
    known_here = options(workspace)
    if not begun.models:
        begun = replace(begun, models=tuple(name for name in suggested(services, known_here) if name))
    listed = [(option.name, option.value) for option in known_here]
    known = {value for _, value in listed}
    listed += [(name, name) for name in begun.models if name not in known]
    note = f'<div class="n-note warn">{words(begun.missing)}</div>' if begun.missing else ""
    return {
        panel.template: key,
        panel.note: note,
        panel.create: words("studies.create"),
        panel.name: words("studies.koni.name") if key == "koni" else "",
        panel.models: gr.update(choices=listed, value=list(begun.models)),
        panel.sets: gr.update(choices=[(set_name(s, words), s.value) for s in sets], value=list(begun.sets)),
        panel.part: "all",
        panel.system: pair.system if pair is not None and key == "own" else "",
        **ask(panel, services, words, begun.sets),
        **write(panel, words.language),
    }


def refill(panel: FormPanel, services: CompareServices, words: Words, study: Study) -> dict[Any, Any]:
    """The form as a draft has it."""
    shown = fill(panel, services, words)
    names = [arm.adapter or arm.base for arm in study.arms]
    listed = list(shown[panel.models]["choices"])
    listed += [(name, name) for name in names if name not in {value for _, value in listed}]
    sets = list(dict.fromkeys(prompt.set for prompt in study.prompts))
    held = {is_heldout(prompt.messages) for prompt in study.prompts}
    shares = {panel.repeats: study.repeat_share, panel.same: study.same_share}
    texts = ("name", "title", "rubric", "consent", "system", "language", "reveal", "target", "overlap")
    return (
        shown
        | ask(panel, services, words, sets)
        | {getattr(panel, field): getattr(study, field) for field in texts}
        | {field: round(100 * share) for field, share in shares.items()}
        | {
            panel.models: gr.update(choices=listed, value=names),
            panel.sets: gr.update(choices=shown[panel.sets]["choices"], value=sets),
            panel.part: "all" if len(held) > 1 else "heldout" if True in held else "learn",
            panel.per_set: max(sum(prompt.set == name for prompt in study.prompts) for name in sets),
            panel.length: study.list_length,
            panel.temperature: study.sampling.temperature,
            panel.tokens: study.sampling.max_new_tokens,
            panel.create: words("studies.save"),
        }
    )


def set_name(prompt_set: choice.PromptSet, words: Words) -> str:
    built_in = prompt_set.value.startswith("builtin-")
    name = words(f"compare.domain.{prompt_set.name}") if built_in else prompt_set.name
    return words("studies.set", name=name, n=len(prompt_set.prompts))


def ask(panel: FormPanel, services: CompareServices, words: Words, sets: Sequence[str]) -> dict[Any, Any]:
    """The questions that fit the chosen sets: one per domain is ticked."""
    prompts = choice.pick(choice.prompt_sets(services.workspace), sets, 10_000)
    choices, ticked = [], []
    for domain in choice.domains(prompts):
        known = criteria_for(domain)
        where = words(f"compare.domain.{domain}") if f"compare.domain.{domain}" in words else domain
        choices += [(words("studies.question", domain=where, label=words(c.label)), c.key) for c in known]
        ticked.append(known[0].key)
    unique = list({value: (label, value) for label, value in choices}.values())
    return {panel.questions: gr.update(choices=unique, value=list(dict.fromkeys(ticked)))}


def write(panel: FormPanel, language: str) -> dict[Any, Any]:
    """Title, rubric and consent in the raters' language."""
    spoken = Words(language)
    return {
        panel.language: language,
        panel.title: spoken("study.default.title"),
        panel.rubric: spoken("study.default.rubric"),
        panel.consent: spoken("study.default.consent"),
    }


def read(
    panel: FormPanel, values: Mapping[Any, Any], services: CompareServices, candidates: Sequence[Candidate]
) -> Study:
    """A draft of what the form says. UserErrors of the study's own checks, "studies.no_name" first."""
    spoken = Words(str(values[panel.language]))
    prompts = chosen_prompts(panel, values, services)
    questions = default_questions(spoken, choice.domains(prompts), values[panel.questions] or ())
    pairs = len(candidates) * (len(candidates) - 1) // 2
    length = min(int(values[panel.length]), max(1, len(prompts) * pairs))
    texts = {field: str(values[getattr(panel, field)] or "").strip() for field in ("title", "rubric", "consent")}
    return new_study(
        str(values[panel.name] or "").strip(),
        candidates,
        prompts,
        spoken,
        **{key: text for key, text in texts.items() if text or key != "title"},
        questions=questions,
        target=int(values[panel.target]),
        list_length=length,
        overlap=min(int(values[panel.overlap]), len(prompts), length // 2),
        repeat_share=float(values[panel.repeats]) / 100,
        same_share=float(values[panel.same]) / 100,
        reveal=str(values[panel.reveal]),
        sampling=Sampling(temperature=float(values[panel.temperature]), max_new_tokens=int(values[panel.tokens])),
        system=str(values[panel.system] or "").strip(),
    )


def chosen_prompts(panel: FormPanel, values: Mapping[Any, Any], services: CompareServices) -> tuple[Prompt, ...]:
    sets = choice.prompt_sets(services.workspace)
    return choice.pick(sets, values[panel.sets] or (), int(values[panel.per_set]), str(values[panel.part]))


def foresee(panel: FormPanel, values: Mapping[Any, Any], services: CompareServices, words: Words) -> str:
    """The estimate for the form as it stands; what is wrong with it instead, if anything."""
    count = max(_LEAST, len(values[panel.models] or ()))
    stand_ins = [Candidate(f"model {n}", f"model {n}", f"model {n}") for n in range(count)]
    try:
        study = read(panel, {**values, panel.name: values[panel.name] or "?"}, services, stand_ins)
        found, raters = services.study_service.estimate(study), int(values[panel.raters])
        votes = raters * found.votes_per_rater
        if 0 < votes < study.target:  # what so few can tell, not what the target could
            reached = services.study_service.estimate(replace(study, target=votes))
            found = replace(found, decided=reached.decided, detectable=reached.detectable)
    except UserError as error:
        return views.bad(words.error(error))
    return study_panel.estimate(found, raters, study.target, len(needed(study)), words)
