"""The charts of a search as SVG. The first one takes more than a second."""

from __future__ import annotations

import pytest

from tests.report.hostile import NAMES
from tests.report.test_charts import words_of

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def drawn():
    """Draws a chart from trials with these accuracies, of which the odd ones were ended early."""
    pytest.importorskip("altair")
    from rnnclf.report import search_charts as charts
    from rnnclf.report.drawing import svg_of

    def trials(*accuracies: float) -> list[charts.TrialPoint]:
        return [
            charts.TrialPoint(
                n, share, n % 2 == 0, f"lr={n}", {"lr": 10.0**-n, "cell": NAMES[n % len(NAMES)]}
            )
            for n, share in enumerate(accuracies)
        ]

    return charts, trials, svg_of


def test_each_trial_says_what_it_was(drawn):
    charts, trials, svg_of = drawn
    words = words_of(svg_of(charts.best_so_far(trials(0.5, 0.9, 0.75))))
    assert [word for word in words if word.startswith("trial ")] == [
        "trial 0, trained to its end: 50.00 %, lr=0",
        "trial 1, ended early: 90.00 %, lr=1",
        "trial 2, trained to its end: 75.00 %, lr=2",
    ]


def test_the_line_of_the_best_is_raised_by_trials_that_were_done_alone(drawn):
    charts, trials, _ = drawn
    line = charts.best_so_far(trials(0.5, 0.9, 0.75, 0.2, 0.6)).to_dict()
    steps = next(rows for rows in line["datasets"].values() if "best" in rows[0])
    assert [row["best"] for row in steps] == [0.5, 0.5, 0.75, 0.75, 0.75]
    none_done = [trial for trial in trials(0.5, 0.9) if not trial.is_done]
    assert charts.best_so_far(none_done)


def test_a_setting_has_the_scale_on_which_it_was_searched(drawn):
    charts, trials, svg_of = drawn
    points = trials(0.5, 0.9, 0.75)
    assert (
        charts.over_setting(points, charts.Setting("lr", is_log=True)).to_dict()["encoding"]["x"]["scale"][
            "type"
        ]
        == "log"
    )
    chosen = charts.Setting("cell", choices=NAMES)
    svg = svg_of(charts.over_setting(points, chosen))
    assert len([word for word in words_of(svg) if word.startswith("trial ")]) == 3
    assert "<script" not in svg


def test_the_importance_of_each_setting_is_told(drawn):
    charts, _, svg_of = drawn
    svg = svg_of(charts.importance({"lr": 0.8, NAMES[0]: 0.2}))
    assert "lr explains 80% of the variance of the score" in words_of(svg)
    assert "<u>" not in svg
