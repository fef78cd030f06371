"""The shape of a model: from the catalogue, or from its config where that is at hand.

Covers: what memory.py and plan.py need to know of a model before it is loaded. Does not cover: weights.
"""

from __future__ import annotations

from assets.catalog import find_model
from assets.files import Workspace
from assets.hub import locate
from finetune.memory import Shape
from finetune.spec import ModelSpec


def shape_of(workspace: Workspace, model: ModelSpec) -> Shape:
    """UserError("hub.…") when neither the catalogue nor the Hub knows the model."""
    card = find_model(model.id)
    if card is not None:
        return Shape.of(card.shape, card.model_type)
    return Shape.from_config(locate(workspace, model.id, model.revision, weights=False).config)
