"""Learning from votes in the form: which files and adapters there are, and what choosing one puts into the other fields.

Covers: choices that are read when the page is opened, defaults for a preference file, the shape of an adapter to go on
from. Does not cover: the fields themselves (tab_form.py), making files (the results tab).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from assets import preferences
from assets.catalog import find_model
from assets.errors import UserError
from assets.preferences import PreferenceFile
from assets.words import Words
from finetune import start as starting
from finetune import tab_form
from finetune.services import TrainServices
from finetune.start import Start

HIDDEN = {"show_progress": "hidden", "api_visibility": "private"}
PRESET = "preference"


@dataclass(frozen=True)
class PreferencePanel:
    """For app.py too: ``take`` brings a new preference file into the form."""

    form: tab_form.Form
    fold: Any
    words: Words
    services: TrainServices

    @property
    def outputs(self) -> list[Any]:
        """What ``take`` may change."""
        form = self.form
        names = list(tab_form.preset_values(PRESET))
        fields = [form.source, form.pairs, form.model, form.system, form.preset]
        return [self.fold, *fields, *(getattr(form, n) for n in names)]

    def take(self, name: str) -> dict[Any, Any]:
        """Updates of ``outputs``: the file is chosen, with the adapter it compares to go on from. UserErrors of a file
        that cannot be read."""
        made = preferences.read(self.services.workspace, name)
        values = values_for(made, self.start_of(made))
        form = self.form
        shown: dict[Any, Any] = {
            form.pairs: gr.update(choices=self.files(), value=made.name),
            form.source: "preferences",
        }
        shown[self.fold] = gr.update(open=True)
        fields: dict[str, Any] = {"preset": PRESET, **values}
        fields = {key: value for key, value in fields.items() if value is not None}
        return shown | {getattr(form, key): value for key, value in fields.items()}

    def start_of(self, made: PreferenceFile) -> Start | None:
        """The compared adapter, if it is still there."""
        if not made.adapter or not Path(made.adapter).is_dir():
            return None
        workspace = self.services.workspace
        return starting.read(workspace, starting.written(workspace, Path(made.adapter)))

    def files(self) -> list[tuple[str, str]]:
        return [
            (
                self.words("train.data.pairs.option", name=f.name, rows=f.rows, objective=f.objective.upper()),
                f.name,
            )
            for f in preferences.listed(self.services.workspace)
        ]

    def adapters(self) -> list[tuple[str, str]]:
        """The adapters of ended runs, newest first."""
        jobs = self.services.jobs
        ended = [job for job in jobs.list() if not job.active and (jobs.folder(job.id) / "adapter").is_dir()]
        return [(job.name, f"jobs/{job.id}/adapter") for job in ended]

    def choices(self) -> list[Any]:
        """Fresh choices for the files and the adapters."""
        return [gr.update(choices=self.files()), gr.update(choices=[("–", ""), *self.adapters()])]

    def on_source(self, source: str, picked: str | None, objective: str) -> dict[Any, Any]:
        """Another origin of the data: the newest file and its defaults, or back to plain fine-tuning."""
        files = self.files()
        if source == "preferences" and files:
            return self.take(picked if picked in [name for _, name in files] else files[0][1])
        if source == "preferences":
            return {self.form.pairs: gr.update(choices=[], value=None)}
        if objective == "sft":
            return {self.form.source: gr.skip()}
        back = tab_form.preset_values("quick")
        fields = {"preset": "quick", **back, "learning_rate": f"{back['learning_rate']:g}"}
        return {getattr(self.form, key): value for key, value in fields.items()}

    def on_pairs(self, name: str | None) -> dict[Any, Any]:
        return self.take(name) if name else {self.form.source: gr.skip()}

    def on_start(self, start: str | None) -> dict[Any, Any]:
        """An adapter by hand: the run gets its rank, its scale, its targets and its base."""
        if not start:
            return {self.form.source: gr.skip()}
        found = starting.read(self.services.workspace, start)
        fields = shape_of(found) | {"model": base_of(found)}
        return {getattr(self.form, key): value for key, value in fields.items() if value is not None}

    def asking(self, handler: Any) -> Any:
        """A handler whose UserError is shown and changes nothing."""

        def ask(*values: Any) -> dict[Any, Any]:
            try:
                found: dict[Any, Any] = handler(*values)
            except UserError as error:
                gr.Warning(self.words.error(error))
                return {self.form.source: gr.skip()}
            return found

        return ask


def wire(form: tab_form.Form, fold: Any, words: Words, services: TrainServices) -> PreferencePanel:
    """The events between these fields; ``fold`` holds the form."""
    panel = PreferencePanel(form, fold, words, services)
    page = gr.context.Context.root_block
    page.load(panel.choices, None, [form.pairs, form.start], **HIDDEN)
    form.source.input(panel.asking(panel.on_source), [form.source, form.pairs, form.objective], panel.outputs, **HIDDEN)
    form.pairs.input(panel.asking(panel.on_pairs), form.pairs, panel.outputs, **HIDDEN)
    form.start.input(panel.asking(panel.on_start), form.start, panel.outputs, **HIDDEN)
    return panel


def values_for(made: PreferenceFile, start: Start | None) -> dict[str, Any]:
    """What choosing a preference file puts into the form, by field; None leaves a field as it is."""
    values = tab_form.preset_values(PRESET)
    values |= {"objective": made.objective, "learning_rate": f"{values['learning_rate']:g}"}
    card = find_model(made.base)
    values |= {"model": card.id if card else made.base or None, "system": made.system}
    if start is not None:
        place = start.folder
        inside = place.parent.parent.name == "jobs" and place.name == "adapter"
        values |= shape_of(start) | {"start": f"jobs/{place.parent.name}/adapter" if inside else str(place)}
        values |= {"model": base_of(start) or values["model"], "system": made.system or start.system}
    return values


def shape_of(start: Start) -> dict[str, Any]:
    lora = start.lora
    return {"rank": lora.rank, "alpha": lora.alpha, "targets": lora.targets, "rslora": lora.rslora}


def base_of(start: Start) -> str | None:
    card = find_model(start.base)
    return card.id if card else start.base or None
