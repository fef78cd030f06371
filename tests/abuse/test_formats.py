"""Files that are made to do harm: bombs, pickles, cells that a spreadsheet would run."""

from __future__ import annotations

import contextlib
import csv
import pickle
import zipfile
from pathlib import Path

import psutil
import pytest

from assets.errors import UserError
from assets.files import Workspace
from compare.adapter_folder import inspect
from compare.export import export_spreadsheet
from compare.ratings import RatingsFile
from compare.study_pack import unpack
from compare.study_store import Studies
from finetune import data
from tests.abuse.site import vote

MIB = 2**20


class Alarm:
    """What an unpickler would run."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.sign,))


def bomb(path: Path, name: str, mebibytes: int) -> Path:
    """A zip that unpacks to so much; a thousandth of it on disk."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
        file.open(name, "w", force_zip64=True) as inside,
    ):
        for _ in range(mebibytes):
            inside.write(bytes(MIB))
    return path


def memory() -> float:
    return float(psutil.Process().memory_info().rss / MIB)


def test_a_workbook_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    before, file = memory(), bomb(tmp_path / "bomb.xlsx", "xl/worksheets/sheet1.xml", 2200)
    assert file.stat().st_size < 16 * MIB
    with pytest.raises(UserError):
        data.read_file(file)
    assert memory() - before < 300


def test_a_packed_study_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    before, file = memory(), bomb(tmp_path / "bomb.zip", "study.yaml", 700)
    with pytest.raises(UserError):
        unpack(Studies(Workspace(tmp_path / "work").prepare()), file)
    assert memory() - before < 300


@pytest.mark.parametrize("name", ["adapter_model.bin", "pytorch_model.bin", "adapter_model.pt"])
def test_an_adapter_of_pickles_is_refused_unopened(tmp_path: Path, name: str) -> None:
    sign = tmp_path / "it ran"
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "a/b", "r": 4}')
    (folder / name).write_bytes(pickle.dumps(Alarm(sign)))
    with pytest.raises(UserError):
        inspect(folder)
    assert not sign.exists()


@pytest.mark.parametrize(
    "name", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet", "rows.xlsx", "rows.txt", "rows.pkl"]
)
def test_a_pickle_under_any_name_is_only_bytes(tmp_path: Path, name: str) -> None:
    sign = tmp_path / "it ran"
    file = tmp_path / name
    file.write_bytes(pickle.dumps(Alarm(sign)))
    with contextlib.suppress(UserError):
        data.read_file(file)
    assert not sign.exists()


def test_cells_that_a_spreadsheet_would_run_are_held_back(tmp_path: Path) -> None:
    ratings = RatingsFile(tmp_path / "ratings.csv", "abuse")
    ratings.append(*map(vote, range(4)))
    export_spreadsheet(ratings.path, tmp_path / "excel.csv")
    with (tmp_path / "excel.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) == 5
    assert [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))] == []
    assert any(cell.startswith("'=1+1") for row in rows for cell in row)
