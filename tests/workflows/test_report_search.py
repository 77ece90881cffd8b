"""rnnclf report: the chapter on a search."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.report.test_page import Seen
from tests.workflows.finished_runs import finished_run, share
from tests.workflows.finished_searches import TRIED, Tried, begun, damaged, search_of
from tests.workflows.sweeps import shell

pytest.importorskip("altair")


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def told(cli, *words: str) -> str:
    done = cli("report", *words)
    assert done.exit_code == 0, done.output
    return Path("hunt/report.html").read_text(encoding="utf-8")


@pytest.mark.long
def test_a_search_is_told_with_what_was_searched_and_found(cli):
    search_of(Path("hunt"), *TRIED, seeds=(1, 2, 3))
    html = told(cli, "hunt")
    text = " ".join(Seen(html).text.split())
    for words in (
        "A search of 4 trials on digits",
        "85.00 % mean test accuracy of the best settings with 3 other seeds",
        "The validation accuracy of the best of many trials flatters it",
        "from 1e-4 to 0.1, log",
        "2 done, 1 pruned, 1 failed",
        "It diverged.",
        "not known: needs at least 10 trials with a score, not 3",
        "88.00 ± 0.00 % on the validation sequences and 85.00 ± 0.00 % on the test sequences",
        "rnnclf train dataset=digits name=hunt optimizer.lr=2e-3 hidden=12 cell.nonlinearity=relu",
        "rnnclf resume hunt trials=8",
        "the first finished run of the best settings with other seeds (hunt/best-1/0)",
    ):
        assert words in text
    assert html.count("<svg ") >= 4, "the progress and one for each setting"
    titles = re.findall(r"<h2>([^<]*)</h2>", html)
    assert titles[:7] == [
        *("Doubts", "What was searched", "How it went", "The best trials", "Which settings matter"),
        *("What was found", "Trials that failed"),
    ]  # fmt: skip


@pytest.mark.long
def test_a_search_that_goes_on_is_told_as_such_and_judged_by_its_best_trial(cli):
    tried = [Tried((0.1, 0.1 + n / 20)) for n in range(12)]
    search_of(Path("hunt"), *tried, Tried((0.99,), "interrupted"), asked=3)
    text = " ".join(Seen(told(cli, "hunt")).text.split())
    for words in (
        "80.00 % test accuracy of the best trial",
        "The search is interrupted: what was found so far may change.",
        "trained with a single seed, so their accuracy may be luck: rnnclf resume hunt seeds=5.",
        "The best trial is #11",
        "All 13 trials that have a score",
        "By functional ANOVA",
    ):
        assert words in text


@pytest.mark.long
def test_several_results_have_a_row_each(cli):
    search_of(Path("hunt"), *TRIED, seeds=(1, 2, 3))
    search_of(Path("other"), *TRIED)
    finished_run(Path("run"), share(0.7))
    assert cli("report", "hunt", "other", "run", "--output=all.html").exit_code == 0
    text = " ".join(Seen(Path("all.html").read_text(encoding="utf-8")).text.split())
    for words in ("(hunt) 85.00 %", "(other) 80.00 %", "(run) 70.00 %"):
        assert words in text


@pytest.mark.long
@pytest.mark.timeout(120)
def test_a_search_in_a_process_of_its_own_ends_and_its_seeds_are_what_is_scored(cli):
    words = ("dataset=digits", "dataset.validation=60", "dataset.test=200", "hidden=range(4,7)", "epochs=2")
    search = ("tune", *words, "threads=1", "trials=2", "seeds=2", "hydra.sweep.dir=hunt")
    assert shell(*search).returncode == 0
    done = cli("eval", "hunt", "--json")
    rows = json.loads(done.stdout)
    winner = Path(rows[0]["checkpoint"]).parent.parent
    assert [Path(row["checkpoint"]).parent for row in rows] == [winner / "0", winner / "1"]
    assert winner.name.startswith("best-")
    assert "the best settings with other seeds are taken: 2 runs" in done.stderr
    assert "give the folder of one of these runs" in cli("export", "hunt").stderr
    text = " ".join(Seen(told(cli, "hunt")).text.split())
    assert "An ensemble of" in text
    assert "mean test accuracy of the best settings with 2 other seeds" in text


@pytest.mark.parametrize(
    ("make", "sentence"), [(begun, "no trial is done: rnnclf resume hunt"), (damaged, "is damaged")]
)
def test_without_a_result_there_is_no_report(cli, make, sentence):
    make(Path("hunt"))
    done = cli("report", "hunt")
    assert (done.exit_code, sentence in done.stderr) == (2, True), done.stderr
    assert not [*Path().rglob("*.html")]
