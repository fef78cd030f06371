"""The index beside ratings.csv: light columns and offsets of every row, so that 2 kB votes need not be parsed again.

Covers: building it (fast where the file is as we write it, else with the exact reader), keeping it on disk, extending it
by what was appended, noticing a file that was edited or replaced. Does not cover: what counts as a vote
(ratings_table.py). The index may be deleted at any time; one that is damaged, older or of another file is made anew.

Trust: size, inode and time as recorded are enough once the file has been still for a while. Otherwise the digests of the
indexed bytes are compared (blake2b, 16 MiB a piece), on opening and then at most once a minute; between two of those a
file that grew must still begin, and go on up to where we knew it, with the same bytes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from assets.errors import UserError
from compare import ratings_saved as saved
from compare.csv_store import CsvStore, Record, limited, records
from compare.rating import Rating
from compare.ratings_rows import Parsed, columns_of, parse
from compare.ratings_saved import Proof, Sign, digests, edges, sign_of
from compare.ratings_scan import Odd, segments
from compare.ratings_table import LightVote, Refused, light, rows_of, schema, to_arrow

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)
SMALL = 1 << 18
EVERY = 60.0
SAVE_BYTES = 4 << 20


@dataclass(frozen=True)
class State:
    """Everything known of the first ``end`` bytes: rows that can be read in ``base`` and then in ``tail``, those that
    cannot in ``refused``. ``broken`` says why nothing can be read."""

    generation: int
    header: tuple[str, ...] = ()
    end: int = 0
    line: int = 1
    rows: int = 0
    base: pa.Table | None = None
    tail: tuple[LightVote, ...] = ()
    refused: tuple[Refused, ...] = ()
    broken: tuple[Refused, ...] = ()
    edges: tuple[bytes, bytes] = (b"", b"")
    sign: Sign = (0, 0, 0)

    @property
    def count(self) -> int:
        """Rows that can be read."""
        return (self.base.num_rows if self.base is not None else 0) + len(self.tail)


@dataclass(frozen=True)
class Mark:
    """How far a reader has come."""

    generation: int = -1
    count: int = 0


@dataclass
class RatingsIndex:
    """Thread-safe. One object per process and file; processes share nothing but the files."""

    store: CsvStore
    _state: State = field(default_factory=lambda: State(0))
    _proof: Proof = field(default_factory=Proof)
    _tried: int = 0
    _guard: threading.Lock = field(default_factory=threading.Lock)

    @property
    def path(self) -> Path:
        return self.store.path.with_suffix(".index")

    def refresh(self) -> State:
        """Up to date with the whole rows in the file. A row that is just being written is left for the next time."""
        with self._guard:
            return self._refreshed(thorough=False)

    def columns(self) -> tuple[State, pa.Table]:
        """The state with every readable row in one table, after a look whether anything was edited in place."""
        with self._guard:
            self._state = _joined(self._refreshed(thorough=True))
            if not self._proof.size and self._state.end != self._tried:
                self._save()
            return self._state, schema().empty_table() if self._state.base is None else self._state.base

    def _refreshed(self, thorough: bool) -> State:
        sign = sign_of(self.store.path)
        state = self._state
        if sign is None:
            self._state = State(state.generation + 1) if state.end else state
            return self._state
        if thorough and state.end and not self._proven(sign):
            state = State(state.generation + 1)
        if state.sign != sign:
            state = self._followed(state, sign)
        self._state = state
        if state.end - max(self._proof.size, self._tried) > max(SAVE_BYTES, state.end // 20):
            self._save()
        return self._state

    def since(self, mark: Mark, study_id: str) -> tuple[Mark, bool, list[LightVote]]:
        """(new mark, whether to begin anew, rows): the rows of a study and all that take something back, after ``mark``,
        or all of them when the file is another one now."""
        state = self.refresh()
        now = Mark(state.generation, state.count)
        based = state.base.num_rows if state.base is not None else 0
        anew = mark.generation != state.generation or mark.count > state.count
        start = 0 if anew else mark.count
        old = _study(state.base.slice(start), study_id) if state.base is not None and start < based else []
        tail = state.tail[max(0, start - based) :]
        return now, anew, old + [row for row in tail if row.study_id == study_id or row.action != "vote"]

    def _followed(self, state: State, sign: Sign) -> State:
        """The state of the file with ``sign``: appended rows read, or everything anew."""
        if state.end and sign[1] >= state.end and sign[0] == state.sign[0] and not state.broken:
            if edges(self.store.path, state.end) == state.edges:
                return self._read_on(state, sign)
        elif not state.end and (kept := self._load(state.generation + 1, sign)):
            return self._read_on(kept, sign)
        return self._read_on(State(state.generation + 1), sign)

    def _read_on(self, state: State, sign: Sign) -> State:
        """Read from ``state.end`` to the last whole row."""
        with self.store.path.open("rb") as file:
            if not state.header:
                first = next((record for record in records(file) if not record.blank), None)
                if first is None or not first.whole:
                    return replace(state, sign=sign)
                try:
                    header = columns_of(first, self.store.columns)
                except UserError as error:
                    return replace(state, broken=(Refused(1, error.key, error.values),), sign=sign, end=sign[1])
                end, line = first.start + len(first.raw), first.line + first.raw.count(b"\n")
                state = replace(state, header=tuple(header), end=end, line=line)
            if sign[1] - state.end > SMALL:
                try:
                    state = self._read_fast(state, file, sign[1])
                except Odd as odd:
                    log.info("%s is read row by row: %s", self.store.path.name, odd)
            state = self._read_slowly(state, sign[1])
        return replace(state, sign=sign, edges=edges(self.store.path, state.end))

    def _read_fast(self, state: State, file: BinaryIO, size: int) -> State:
        """Rows as we write them, up to ``size``. Odd before anything is taken when one is not."""
        import pyarrow as pa

        pieces = list(segments(file, state.end, size, state.line, state.header))
        if not pieces:
            return state
        tables = [piece.data for piece in pieces]
        rows, refused = self._exactly(state, [odd for piece in pieces for odd in piece.odd])
        table = pa.concat_tables([*tables, to_arrow(rows)]).unify_dictionaries().combine_chunks()
        if rows:
            table = table.sort_by("offset")
        joined = _joined(state)
        base = table if joined.base is None else pa.concat_tables([joined.base, table])
        return replace(
            joined,
            base=base,
            end=pieces[-1].end,
            line=state.line + sum(piece.lines for piece in pieces),
            rows=state.rows + sum(piece.rows for piece in pieces),
            refused=state.refused + tuple(refused),
        )

    def _exactly(self, state: State, odd: list[Sign]) -> tuple[list[LightVote], list[Refused]]:
        """Single rows with the exact reader."""
        with self.store.path.open("rb") as file:
            found = []
            for line, offset, length in odd:
                file.seek(offset)
                found.append(Record(line, offset, file.read(length), True))
        return _sorted_out(parse(found, state.header))

    def _read_slowly(self, state: State, size: int) -> State:
        with self.store.path.open("rb") as file:
            file.seek(state.end)
            pieces = records(limited(file, size - state.end), state.line, state.end)
            whole, lines = [], 0
            for record in pieces:
                if not record.whole and record.start + len(record.raw) >= size:
                    break
                whole.append(record)
        if not whole:
            return state
        rows, refused = _sorted_out(parse(whole, state.header))
        lines = sum(record.raw.count(b"\n") for record in whole)
        return replace(
            state,
            tail=state.tail + tuple(rows),
            refused=state.refused + tuple(refused),
            end=whole[-1].start + len(whole[-1].raw),
            line=state.line + lines,
            rows=state.rows + sum(not record.blank for record in whole),
        )

    def _proven(self, sign: Sign) -> bool:
        """Whether the bytes that the proof is about are still those."""
        proof = self._proof
        if not proof.size or sign == proof.sign or time.time() - proof.at < EVERY:
            return True
        if sign[0] != proof.sign[0] or not proof.holds(self.store.path, sign):
            return False
        self._proof = replace(proof, sign=sign, at=time.time())
        return True

    def _load(self, generation: int, sign: Sign) -> State | None:
        """The index on disk, if it is of this file; None otherwise."""
        found = saved.read(self.path)
        if found is None:
            return None
        head, proof, base = found
        if not proof.still(sign) and not proof.holds(self.store.path, sign):
            return None
        self._proof = replace(proof, sign=sign, at=time.time())
        refused = tuple(Refused(line, key, values) for line, key, values in head["refused"])
        known = edges(self.store.path, proof.size)
        return State(
            generation,
            tuple(head["header"]),
            proof.size,
            head["line"],
            head["rows"],
            base,
            refused=refused,
            edges=known,
        )

    def _save(self) -> None:
        """Keep the index, unless it is small; one that cannot be written is no harm, and one about a file that somebody
        changes at this moment is kept another time."""
        state = self._state = _joined(self._state)
        self._tried = state.end
        if state.base is None or state.end < SMALL:
            return
        head = {
            "header": state.header,
            "line": state.line,
            "rows": state.rows,
            "refused": [(row.line, row.reason_key, dict(row.values)) for row in state.refused],
        }
        try:
            proof = Proof(state.end, digests(self.store.path, state.end), state.sign, time.time())
            if sign_of(self.store.path) != state.sign:
                return
            saved.write(self.path, head, proof, state.base)
        except OSError as error:
            log.info("no index: %s", error)
            return
        self._proof = proof


def _study(table: pa.Table, study_id: str) -> list[LightVote]:
    import pyarrow as pa
    import pyarrow.compute as pc

    mine = pc.equal(table.column("study_id").cast(pa.string()), study_id)
    backs = pc.not_equal(table.column("action").cast(pa.string()), "vote")
    return rows_of(table.filter(pc.or_(mine, backs)))


def _joined(state: State) -> State:
    """The tail brought into the base."""
    import pyarrow as pa

    if not state.tail:
        return state
    tables = ([] if state.base is None else [state.base]) + [to_arrow(state.tail)]
    return replace(state, base=pa.concat_tables(tables).unify_dictionaries().combine_chunks(), tail=())


def _sorted_out(parsed: Iterator[Parsed]) -> tuple[list[LightVote], list[Refused]]:
    rows, refused = [], []
    for record, found in parsed:
        if isinstance(found, Rating):
            rows.append(light(found, record.line, record.start, len(record.raw)))
        else:
            refused.append(Refused(record.line, found.key, found.values))
    return rows, refused
