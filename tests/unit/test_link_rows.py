"""The WAN benchmark's data and small arithmetic: a target that names no row would never be judged."""

from __future__ import annotations

import pytest

pytest.importorskip("certifi", reason="comes with the bench extra")
pytest.importorskip("cryptography", reason="comes with the bench extra")

from benchmarks.peers.cell import Cell, percentile
from benchmarks.peers.report import index, load_results, save_results, target_table
from benchmarks.peers.rows import RAPTOR_MODES, TARGETS, all_contestants, all_rows


def test_every_target_names_a_row_a_mode_and_a_number() -> None:
    names = [row.name for row in all_rows()]
    assert len(set(names)) == len(names)
    for target in TARGETS:
        assert target.row in names
        assert target.mode in RAPTOR_MODES
        assert target.metric in {"median", "p90", "p99"}


def test_contestants_have_names_of_their_own() -> None:
    names = [one.name for one in all_contestants(["cubic", "bbr"])]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("fraction", "expected"), [(0.5, 50), (0.9, 90), (0.99, 99), (1.0, 100)])
def test_percentiles_are_by_nearest_rank(fraction: float, expected: int) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], fraction) == expected


def test_percentiles_of_few_samples_are_the_largest() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert percentile([7.0], 0.5) == 7.0


def test_results_survive_the_file_and_misses_are_named(tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "results.json"
    row = TARGETS[0].row
    met = Cell(row, "raptor", TARGETS[0].mode, "cubic", samples=100, median=TARGETS[0].limit_ms)
    empty = Cell(row, "boto3", "cold", "cubic", failures=3, errors=["nothing answers"])
    save_results(path, {"date": "today"}, [met, empty])
    run, cells = load_results(path)
    assert run == {"date": "today"}
    assert str(cells) == str([met, empty])
    assert "| met |" in target_table(index(cells))
    slow = Cell(row, "raptor", TARGETS[0].mode, "cubic", samples=100, median=TARGETS[0].limit_ms + 1)
    assert "**missed**" in target_table(index([slow]))
