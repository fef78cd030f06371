"""The pair that a work behind the pages needs: the one that is loaded if it will do, else loaded now.

Covers: waiting for the end of loading, telling how far it is. Does not cover: loading itself (desk.py).
"""

from __future__ import annotations

from collections.abc import Callable

from assets.errors import UserError
from compare.desk import Candidate, Desk, Loading, Pair


def loaded_pair(
    desk: Desk,
    wanted: tuple[Candidate, Candidate],
    together: Callable[[], bool],
    tell: Callable[[Loading], None],
) -> Pair:
    """The pair of these two models; ``together`` says whether both fit into memory at once.

    What ended the loading is raised; UserError("compare.pair_changed") when another took its place.
    """
    loaded = desk.pair
    models = {candidate.model for candidate in wanted}
    if loaded is not None and models == {candidate.model for candidate in loaded.candidates}:
        return loaded
    desk.load(*wanted, together())
    for loading in desk.follow():
        tell(loading)
        if loading.ended and loading.error is not None:
            raise loading.error
    pair = desk.pair
    if pair is None:
        raise UserError("compare.pair_changed")
    return pair
