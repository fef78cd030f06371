"""Handlers for a study that is rated elsewhere: out as one file, votes back, in from another instance."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import gradio as gr

from assets.files import for_download
from compare import study_pack
from compare.study import Study
from compare.tab_study_guard import Guarded
from compare.tab_study_one import OnePanel, Room, Shown


class Away(Guarded):
    """What needs the study looked at, and the page painted, comes from the page."""

    one: OnePanel

    @property
    @abstractmethod
    def _nothing(self) -> Shown: ...

    @abstractmethod
    def paint(self, room: Room) -> Shown: ...

    @abstractmethod
    def _study(self, room: Room) -> Study | None: ...

    @abstractmethod
    def _change(self, room: Room, request: gr.Request, how: Callable[[Study], object]) -> Shown: ...

    def pack(self, room: Room, request: gr.Request) -> Shown:
        studies = self.services.studies
        return self._hand_out(room, request, "zip", lambda study, to: study_pack.pack(studies, study.id, to))

    def votes(self, room: Room, request: gr.Request) -> Shown:
        ratings = self.services.ratings
        return self._hand_out(room, request, "csv", lambda study, to: study_pack.votes_csv(ratings, study.id, to))

    def _hand_out(self, room: Room, request: gr.Request, kind: str, write: Callable[[Study, Path], object]) -> Shown:
        """Write a file and put it behind the download button."""
        with self.telling():
            self.only_owner(request)
            study = self._study(room)
            if study is not None:
                target = for_download(f"naranhi-{study.id}-{datetime.now():%m%d-%H%M}.{kind}")
                write(study, target)
                label = self.words("studies.download.named", name=target.name)
                return self.paint(room) | {self.one.file: gr.update(value=str(target), visible=True, label=label)}
        return self._nothing

    def merge(self, room: Room, file: str | None, request: gr.Request) -> Shown:
        """Votes that were given elsewhere."""

        def merged(study: Study) -> None:
            services = self.services
            found = study_pack.merge(services.studies, services.ratings, study.id, Path(str(file)))
            counts = {"added": found.added, "known": found.known, "refused": len(found.refused), "other": found.other}
            room.told = f'<div class="n-note good">{self.words("studies.merged", **counts)}</div>'

        return self._change(room, request, merged)

    def unpack(self, room: Room, file: str | None, request: gr.Request) -> Shown:
        """A study from another instance."""
        with self.telling():
            self.only_owner(request)
            room.go(study_pack.unpack(self.services.studies, Path(str(file))).id)
            return self.paint(room)
        return self._nothing
