"""The votes as a data set to publish: a zip with a card, the exact CSV, and rows for training and arena tools.

Covers: README.md with the Hub's front matter, counts, what was left out. Does not cover: uploading it.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from assets.words import Words
from compare.export import Exported, export_csv, written
from compare.export_pairs import export_arena, export_judged, export_preferences
from compare.rating import Rating
from compare.ratings import RatingsFile

_FRONT = """---
language:
- ko
task_categories:
- text-generation
tags:
- preference
- pairwise-comparison
- human-feedback
size_categories:
- {size}
configs:
- config_name: votes
  data_files: ratings.csv
- config_name: preferences
  data_files: preferences.jsonl
- config_name: judged
  data_files: judged.jsonl
- config_name: arena
  data_files: arena.jsonl
---
"""
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def export_dataset(ratings: RatingsFile, target: Path, words: Words) -> Exported:
    """UserError("ratings.nothing_to_export") without a file of votes. ``rows`` counts votes."""
    votes = ratings.read().votes
    with tempfile.TemporaryDirectory(prefix="naranhi-") as name:
        folder = Path(name)
        export_csv(ratings.path, folder / "ratings.csv")
        made = {
            "pairs": export_preferences(votes, folder / "preferences.jsonl"),
            "kto": export_judged(votes, folder / "judged.jsonl"),
            "arena": export_arena(votes, folder / "arena.jsonl"),
        }
        (folder / "README.md").write_text(card(votes, made, words), encoding="utf-8", errors="replace")
        with written(target) as out, ZipFile(out, "w", ZIP_DEFLATED) as archive:
            for file in sorted(folder.iterdir()):
                archive.write(file, file.name)
    return Exported(target, len(votes))


def card(votes: Sequence[Rating], made: dict[str, Exported], words: Words) -> str:
    """The README.md of the data set."""
    models = Counter(model for vote in votes for model in {vote.model_a, vote.model_b})
    domains = Counter(vote.domain for vote in votes)
    size = next((size for most, size in _SIZES if len(votes) < most), "n>1M")
    lines = [
        words("report.card.about", n=len(votes)),
        "",
        f"## {words('report.card.files')}",
        "",
        f"- `ratings.csv`: {words('report.card.csv')}",
        *(
            f"- `{one.path.name}`: {words(f'report.card.{kind}', n=one.rows)}{_left_out(one, words)}"
            for kind, one in made.items()
        ),
        "",
        *(f"- `{domain or '-'}`: {n}" for domain, n in domains.most_common()),
        "",
        f"## {words('report.card.limits')}",
        "",
        words("report.card.licence"),
        "",
        *(f"- `{model}`: {n}" for model, n in models.most_common()),
    ]
    return _FRONT.format(size=size) + "\n" + "\n".join(lines) + "\n"


def _left_out(made: Exported, words: Words) -> str:
    if not made.left_out:
        return ""
    what = ", ".join(f"{words('ratings.left_out.' + why)} {n}" for why, n in made.left_out.items())
    return f" ({words('results.made.left_out', what=what)})"
