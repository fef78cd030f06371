"""Any file people really have, to conversations, and why rows were dropped.

Covers: the names that other modules use; the work is done in the data_*.py files beside this one:
read_file or read_hub -> Table, guess -> Mapping, convert -> Converted, describe -> Report. Does not cover: tokens.
"""

from __future__ import annotations

from finetune.data_convert import convert, usable
from finetune.data_hub import Fetch, HubFetch, Listing, read_hub
from finetune.data_prompts import PROMPT_FIELDS, PromptSet, guess_prompts, prompts_from, read_prompts
from finetune.data_read import MAX_BYTES, SUFFIXES, read_file
from finetune.data_report import Bin, Reason, Report, data_sha256, describe, length
from finetune.data_shapes import FIELDS, guess
from finetune.data_similar import NEAR, Similar, similar
from finetune.data_table import Converted, Dropped, Example, Mapping, Message, Note, Table

__all__ = [
    "FIELDS",
    "MAX_BYTES",
    "NEAR",
    "PROMPT_FIELDS",
    "SUFFIXES",
    "Bin",
    "Converted",
    "Dropped",
    "Example",
    "Fetch",
    "HubFetch",
    "Listing",
    "Mapping",
    "Message",
    "Note",
    "PromptSet",
    "Reason",
    "Report",
    "Similar",
    "Table",
    "convert",
    "data_sha256",
    "describe",
    "guess",
    "guess_prompts",
    "length",
    "prompts_from",
    "read_file",
    "read_hub",
    "read_prompts",
    "similar",
    "usable",
]
