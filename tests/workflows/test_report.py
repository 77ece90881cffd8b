"""rnnclf report: one page on runs and sweeps."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from rnnclf.cli import app
from rnnclf.errors import CheckpointError, ConfigError
from rnnclf.files import write_json
from rnnclf.workflows import report
from rnnclf.workflows.report_words import doubts_of, how_it_was_judged, what_was_trained
from rnnclf.workflows.runs import RunFolder
from tests.cli_runs import SMALL
from tests.conftest import logging_restored
from tests.report.hostile import NAMES, write_table
from tests.report.test_page import Seen
from tests.workflows.finished_sweeps import Done, finished_sweep

RESULTS = {
    **{"cell": "gru", "dataset": "x", "hidden": 8, "parameters": 100, "epochs": 3, "best_epoch": 2},
    "test": {
        "accuracy": 0.9,
        "correct": 900,
        "total": 1000,
        "interval95": [0.88, 0.92],
        "commonest_rate": 0.5,
    },
}


def test_nothing_is_doubted_without_a_reason():
    assert doubts_of(RESULTS, "no predictions") == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"warnings": ["3 sequences are in both"]}, "3 sequences are in both"),
        ({"test": {**RESULTS["test"], "commonest_rate": 0.9}}, "no better than guessing"),
        ({"test": {**RESULTS["test"], "total": 60}}, "only 60 sequences, so the 95 % interval is 4 points"),
        ({"rollbacks": [{}, {}]}, "diverged 2 times"),
        ({"extended": [{"at": 3}]}, "longer than first planned"),
    ],
)
def test_each_reason_to_doubt_is_told(changed, said):
    (doubt,) = doubts_of({**RESULTS, **changed}, "no predictions")
    assert said in doubt


@pytest.mark.parametrize(
    ("configuration", "said"),
    [
        ({}, "units (100 parameters) was trained"),
        ({"bidirectional": True}, "that reads each sequence in both directions was trained"),
        ({"axes": "both"}, "that reads each sequence along its steps and across them was trained"),
        (
            {"axes": "alternating", "bidirectional": True},
            "that reads the columns and the rows of each sequence alternately, in both directions, was",
        ),
    ],
)
def test_how_the_network_reads_is_told(configuration, said):
    assert said in "".join(what_was_trained(RESULTS, configuration))


@pytest.mark.long
@pytest.mark.parametrize(("low", "is_beaten"), [(0.915, False), (0.925, True)])
def test_a_baseline_that_does_better_is_told(low, is_beaten):
    pytest.importorskip("altair")
    from rnnclf.workflows.report_run import beaten

    baseline = {"baseline": "forest", "test": {"accuracy": 0.95, "interval95": [low, 0.97]}}
    found = SimpleNamespace(results=RESULTS, baselines=[baseline])
    assert [*beaten(found)] == ["forest, a baseline, does better on the same sequences: 95.00 %."] * is_beaten


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "those of epoch 2. The test sequences were used only once"),
        ({"epochs": 1}, "went through the training sequences once. The test sequences"),
        ({"select": "last"}, "The weights after the last pass were kept"),
        ({"final_fit": True}, "trained once more, on the training and the validation sequences"),
        ({"protocol": "tutorial"}, "scored after every pass, too, but influenced no choice"),
        ({"stopped": "Stopped after 10m."}, "influenced no choice. Stopped after 10m."),
    ],
)
def test_how_it_was_judged_is_told_as_it_was(changed, said):
    assert said in " ".join(how_it_was_judged({**RESULTS, **changed}))


def test_without_the_packages_the_install_line_is_the_answer(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "find_spec", lambda name: None if name == "jinja2" else object())
    done = cli("report", tmp_path)
    assert done.exit_code == 2
    assert done.stderr == (
        "error: A report needs Altair, vl-convert and Jinja2: pip install 'rnnclf[report]'.\n"
    )


@pytest.mark.long
def test_folders_without_results_are_refused(cli, tmp_path):
    pytest.importorskip("altair")
    (tmp_path / "begun").mkdir()
    write_json(tmp_path / "begun" / "status.json", {"state": "interrupted"})
    (tmp_path / "baseline").mkdir()
    write_json(tmp_path / "baseline" / "status.json", {"state": "done", "baseline": "dtw"})
    finished_sweep(tmp_path / "lost", Done(["cell=gru"], 0.9, 0.9, error="no memory"))
    for path, said in {
        "no": "no does not exist: give a run folder or a sweep folder.",
        ".": ". is not the folder of a run or a sweep.",
        "begun": "begun is interrupted: finish it with rnnclf resume first.",
        "baseline": "baseline holds a baseline",
        "lost": "lost is a sweep of which no job has finished",
    }.items():
        done = cli("report", path)
        assert (done.exit_code, said in done.stderr) == (2, True), (path, done.stderr)
    done = cli("report", "lost", "-o", tmp_path)
    assert "is a folder: name a file" in done.stderr
    assert not [*tmp_path.rglob("*.html")]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run on a hostile table, one on digits and a sweep, all with their reports."""
    pytest.importorskip("altair")
    folder = tmp_path_factory.mktemp("made")
    write_table(folder / "my.csv")
    jobs = [
        Done(["cell=gru", f"seed={n}", "dataset=x"], 0.9 + n / 100, 0.8 + n / 50, ["a leak"])
        for n in range(3)
    ]
    jobs += [Done(["cell=<b>", f"seed={n}", "dataset=x"], 0.7 + n / 100, 0.6) for n in range(3)]
    finished_sweep(folder / "sweep", *jobs, Done(["cell=lem", "seed=0", "dataset=x"], 0, 0, error="<i>"))
    with pytest.MonkeyPatch.context() as patch, logging_restored():
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        small = (*SMALL[1:], "recipe=plain")
        for words in (
            ("train", "my.csv", *small, "hydra.run.dir=table"),
            ("train", *SMALL, "hydra.run.dir=digits"),
            ("report", "table", "--json"),
            ("report", "sweep", "digits", "--output=both.html"),
        ):
            done = CliRunner().invoke(app, [*words])
            assert done.exit_code == 0, done.output
            if words[-1] == "--json":
                assert json.loads(done.stdout)["bytes"] == (folder / "table" / "report.html").stat().st_size
    return folder


def seen(path: Path) -> Seen:
    return Seen(path.read_text(encoding="utf-8"))


@pytest.mark.long
def test_hostile_names_in_a_run_stay_text(made):
    found = seen(made / "table" / "report.html")
    assert [tag for tag, _ in found.tags].count("script") == 1
    assert not {tag for tag, _ in found.tags} & {"u", "b", "iframe"}
    assert not [key for _, given in found.tags for key in given if key.startswith("on")]
    assert NAMES[0] in found.text
    assert "{{7*7}}" in found.text
    assert "\x1b" not in found.text
    assert "<u>channel</u>" in found.text
    assert any(tag == "polyline" for tag, _ in found.tags)


@pytest.mark.long
def test_a_run_is_told_with_its_figures(made):
    results = json.loads((made / "digits" / "results.json").read_text())
    provenance = json.loads((made / "digits" / "provenance.json").read_text())
    html = (made / "both.html").read_text()
    found = Seen(html[html.index('id="part2"') :])
    test = results["test"]
    wrong = test["total"] - test["correct"]
    for words in (
        f"{100 * test['accuracy']:.2f} %",
        f"classifies {test['correct']} of {test['total']} test sequences correctly",
        f"{wrong} of {test['total']} test sequences were misclassified",
        f"rnnclf train {' '.join(SMALL)}",
        provenance["data_fingerprint"],
    ):
        assert words in found.text
    assert sum(tag == "img" for tag, _ in found.tags) == min(wrong, 96)
    titles = re.findall(r"<h3>([^<]*)</h3>", html[html.index('id="part2"') :])
    assert titles[-7:] == [
        *("Results", "How it learned", "Classes", "Can its probabilities be trusted?"),
        *("The mistakes", "Cost", "To repeat it"),
    ]


@pytest.mark.long
def test_a_sweep_is_told_with_its_comparison_its_doubts_and_what_was_lost(made):
    text = seen(made / "both.html").text
    assert "2 configurations on x" in text
    assert "7 runs, of which 6 finished" in text
    assert "90.00 ± 1.00 %" not in text
    assert "91.00 ± 1.00 %" in text  # validation of the first
    assert "#0 #1 #2: a leak" in text
    assert "1 of 7 runs did not finish" in text
    assert "cell=<b>" in text
    assert "rnnclf compare tells whether" in text
    assert len(re.findall("<article", (made / "both.html").read_text())) == 2


@pytest.mark.long
def test_mistakes_are_listed_without_drawings_if_the_data_are_gone_or_have_changed(made, tmp_path):
    from rnnclf.workflows.report_run import mistake_blocks, reported

    found = reported(RunFolder(made / "table"), "table")
    table = (made / "my.csv").rename(tmp_path / "my.csv")
    words, gallery = mistake_blocks(found, found.judged, [])
    assert "They are not drawn, because" in words.paragraphs[-1]
    assert len(gallery.mistakes) == found.judged.mistakes > 5
    assert not any(mistake.series for mistake in gallery.mistakes)
    elsewhere = [f"dataset.path={table}"]
    words, gallery = mistake_blocks(found, found.judged, elsewhere)
    assert len(words.paragraphs) == 1
    assert all(mistake.series and "my.csv, line" in mistake.place for mistake in gallery.mistakes)
    table.write_text(table.read_text().replace('<i>0</i>",0,0.0', '<i>0</i>",0,0.5'))
    with pytest.raises(CheckpointError, match="of table cannot be drawn: the data have changed since"):
        mistake_blocks(found, found.judged, elsewhere)
    with pytest.raises(ConfigError, match="'hidden' cannot be changed in a report"):
        report.report([made / "table"], ["hidden=3"])
