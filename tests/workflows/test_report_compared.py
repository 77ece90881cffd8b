"""How the report of a sweep tells its configurations apart."""

from pathlib import Path

import pytest

from rnnclf.workflows import report_compared
from rnnclf.workflows.compare import compare, compared_within
from rnnclf.workflows.report_compared import confusion_blocks, differences_table
from rnnclf.workflows.report_sweep import sweep_reported
from tests.workflows.finished_sweeps import Done, finished_sweep


def draw(chart, title):
    return f"<svg>{title}</svg>"


def made(folder: Path, **right: list[int]):
    """The report's view of a sweep over cells, each with runs that are right on so many of ten sequences."""
    jobs = []
    for cell, counts in right.items():
        for seed, count in enumerate(counts):
            ids = [2 * n for n in range(count)] + [2 * n + 1 for n in range(count, 10)]  # the even are right
            words = [f"cell={cell}", f"seed={seed}", "dataset=x"]
            jobs.append(Done(words, count / 10, count / 10, ids={"test": ids}))
    found = sweep_reported(finished_sweep(folder, *jobs), "my sweep")
    (section,) = found.ranking.sections
    return found, [(found.name(candidate), candidate) for candidate in section.candidates]


def test_the_differences_are_those_of_compare(tmp_path):
    found, named = made(tmp_path / "sweep", gru=[8, 9, 7, 9], lstm=[5, 6, 6, 5])
    table = differences_table(compared_within(found.folder), named, found.runs, found.typed)
    (pair,) = compare([found.folder]).sections[0].pairs
    (row,) = table.rows
    assert row[0].text == "cell=gru – cell=lstm"
    assert [cell.value for cell in row[1:5]] == [pair.difference, 4, pair.interval95[0], pair.adjusted_p]
    assert row[5].text == "cell=gru is better"
    assert table.titles[:3] == ("pair", "difference", "runs")


@pytest.mark.parametrize(
    ("cells", "all_pairs", "shown", "more"), [(4, 10, 6, None), (4, 3, 3, None), (6, 10, 10, "5 more pairs")]
)
def test_of_many_configurations_the_first_are_compared(tmp_path, monkeypatch, cells, all_pairs, shown, more):
    monkeypatch.setattr("rnnclf.workflows.compare.MOST_FOR_ALL_PAIRS", all_pairs)
    found, named = made(tmp_path / "sweep", **{f"c{n}": [9 - n, 9 - n] for n in range(cells)})
    table = differences_table(compared_within(found.folder), named, found.runs, found.typed)
    assert len(table.rows) == shown
    assert [note for note in table.notes if "more pairs" in note] == (
        [f"{more}: rnnclf compare 'my sweep'"] if more else []
    )
    assert all(row[0].text.startswith("cell=c0") for row in table.rows[: cells - 2])


def test_a_single_configuration_has_nothing_to_be_compared_with(tmp_path):
    found, named = made(tmp_path / "sweep", gru=[8, 9, 7])
    assert differences_table(compared_within(found.folder), named, found.runs, found.typed) is None


def test_confusions_are_added_up_over_the_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(report_compared, "MOST_CONFUSED", 2)
    monkeypatch.setattr(report_compared.charts, "confusion", lambda classes, counts: (classes, counts))
    found, named = made(tmp_path / "sweep", gru=[8, 9, 7], lstm=[5, 5, 6], lem=[1])
    found.runs[4].predictions.unlink()
    drawn = []
    figures, table = confusion_blocks(named, found.runs, lambda chart, title: drawn.append(chart) or "")
    assert drawn == [(("a", "b"), [[24, 6], [0, 0]]), (("a", "b"), [[11, 9], [0, 0]])]
    assert figures.figures[1].caption.startswith("cell=lstm: 2 runs, added up.")
    assert table.titles[:3] == ("class, cell=gru", "sequences", "recognised")
    assert "95 % interval" not in table.titles  # the runs have the same test sequences
    assert [cell.text for cell in table.rows[0][:3]] == ["a", "30", "80.00 %"]
    assert {len(row) for row in table.rows} == {len(table.titles)}


def test_one_run_a_configuration_has_no_confusions_to_add_up(tmp_path):
    found, named = made(tmp_path / "sweep", gru=[8], lstm=[5])
    assert confusion_blocks(named, found.runs, draw) == []
