"""The text model inside a multimodal checkpoint.

Covers: how Gemma 3's tensors are named there and what they are called in the class for text alone. Without this renaming
``Gemma3ForCausalLM.from_pretrained`` finds none of them and goes on with random weights. Does not cover: images.
"""

from __future__ import annotations

TEXT_NAMES = {"^(model.)?language_model.(model.)?(?!lm_head)": "model.", "^language_model.lm_head": "lm_head"}
"""For ``key_mapping`` of ``from_pretrained``: regular expression -> new beginning of the name."""
