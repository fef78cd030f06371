"""Who may press something in the room for studies, and how what went wrong is said."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from assets.errors import UserError
from assets.words import Words
from compare import views
from compare.services import CompareServices

log = logging.getLogger(__name__)


class Guarded:
    """For a page's handlers: the owner alone, and errors in the page's language."""

    words: Words
    services: CompareServices

    @contextmanager
    def telling(self) -> Iterator[None]:
        """What goes wrong inside is said in the page's language."""
        try:
            yield
        except UserError as error:
            self.warn(error)
        except Exception as error:
            log.exception("a handler of the studies failed")
            gr.Warning(views.sentence(error, self.words), title=self.words("app.failed"), duration=None)

    def only_owner(self, request: gr.Request) -> None:
        if not self.services.owner(request):
            raise UserError("app.owner_only")

    def warn(self, error: UserError) -> None:
        gr.Warning(self.words.error(error), title=self.words("app.name"))
