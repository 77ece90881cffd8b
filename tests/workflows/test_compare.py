"""`rnnclf compare`: which of several runs is better, how sure that is, and where they differ."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from rnnclf.console.compare import comparison_tables
from rnnclf.errors import RnnclfError
from rnnclf.files import write_json
from rnnclf.statistics import mcnemar_p, paired, paired_interval, unpaired
from rnnclf.workflows.compare import Compared, compare
from tests.workflows.finished_runs import answers, finished_run, rewrite, share, write_answers

GRU = [0.90, 0.94, 0.93, 0.91, 0.92]
LSTM = [0.80, 0.86, 0.83, 0.80, 0.81]


def shown(found: Compared, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO())
    with console.capture() as captured:
        console.print(comparison_tables(found, width))
    return captured.get()


@pytest.fixture
def two(tmp_path) -> list[Path]:
    """Two runs on 100 sequences: a alone is right on 14 of them, b alone on 4."""
    a = finished_run(tmp_path / "a", share(0.9), validation=0.9)
    b = finished_run(tmp_path / "b", share(0.8, first=14), cell="lstm")
    return [a, b]


@pytest.fixture(scope="module")
def methods_once(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("methods")
    for cell, accuracies in (("gru", GRU), ("lstm", LSTM)):
        for seed, accuracy in enumerate(accuracies):
            finished_run(
                folder / f"{cell}{seed}",
                share(accuracy, first=5 * seed),
                cell=cell,
                seed=seed,
                threads={"gru": 1, "lstm": 2}[cell],
                validation=accuracy,
            )
    return folder


@pytest.fixture
def methods(methods_once, tmp_path) -> Path:
    """Two cells with five seeds each; the lstm's were computed with another number of threads."""
    return shutil.copytree(methods_once, tmp_path / "all")


def test_two_runs_are_compared_as_two_checkpoints(two):
    (section,) = compare(two).sections
    (pair,) = section.pairs
    assert (pair.first, pair.second, pair.how) == ("cell=gru", "cell=lstm", "checkpoints")
    assert pair.difference == pytest.approx(0.1)
    assert pair.p == pair.adjusted_p == mcnemar_p(14, 4)
    assert pair.interval95 == paired_interval(76, 14, 4, 6)
    text = shown(compare(two))
    assert "this is about two checkpoints, not two methods" in text
    assert "1 is better" in text


def test_it_says_where_they_differ(two):
    found = compare(two).sections[0].pairs[0].disagreement
    assert (found.both, found.only_first, found.only_second, found.neither) == (76, 14, 4, 6)
    assert {row.label: (row.only_first, row.only_second, row.total) for row in found.by_class} == {
        "a": (7, 2, 50),
        "b": (7, 2, 50),
    }
    assert [example.id for example in found.second_right] == ["90", "91", "92", "93"]
    assert (found.first_right[0].id, found.first_right[0].label, found.first_right[0].predicted) == (
        "0", "a", "b",
    )  # fmt: skip
    text = shown(compare(two))
    assert "1 alone right: id 0 (a taken for b); id 1 (b taken for a)" in text


def test_sequences_are_matched_by_id_not_by_place(two):
    """As if b had read the sequences in another order."""
    before = compare(two).sections[0].pairs[0]
    file = two[1] / "predictions.parquet"
    evaluation = answers(np.array(share(0.8, first=14)))
    order = np.random.default_rng(0).permutation(100)
    shuffled = type(evaluation)(
        evaluation.classes, evaluation.y_N[order], evaluation.logits_NK[order], evaluation.ids_N[order]
    )
    write_answers(file, shuffled)
    assert compare(two).sections[0].pairs[0] == before


def test_configurations_are_compared_over_common_seeds_whatever_the_threads(methods):
    (section,) = compare([methods]).sections
    (pair,) = section.pairs
    assert [(c.name, len(c.runs)) for c in section.contenders] == [("cell=gru", 5), ("cell=lstm", 5)]
    assert (pair.how, pair.runs) == ("sequences", (5, 5))
    assert pair.difference == pytest.approx(0.1)
    over_seeds = paired([a - b for a, b in zip(GRU, LSTM, strict=True)])
    assert pair.interval95[0] <= over_seeds.interval95[0] < over_seeds.interval95[1] <= pair.interval95[1]
    assert over_seeds.p <= pair.p <= 0.05
    assert pair.improvement == 1.0
    assert pair.disagreement.pairs == 5


def test_a_difference_may_be_too_small_to_matter(methods):
    pair = compare([methods], equal=0.2).sections[0].pairs[0]
    better, same, worse = pair.chances
    assert better + same + worse == pytest.approx(1)
    assert same > 0.95
    assert "chances" in shown(compare([methods], equal=0.2))


def test_without_common_seeds_the_test_is_welchs(methods):
    for seed in range(5):
        rewrite_seed(methods / f"lstm{seed}", seed + 10)
    pair = compare([methods]).sections[0].pairs[0]
    assert (pair.how, pair.p) == ("unpaired", pytest.approx(unpaired(GRU, LSTM).p))
    assert "over different seeds (Welch's t test)" in shown(compare([methods]))


def rewrite_seed(run: Path, seed: int) -> None:
    configuration = json.loads((run / "status.json").read_text())["configuration"]
    rewrite(run / "status.json", configuration=configuration | {"seed": seed})


def test_windows_of_a_recording_count_together(two):
    """Five windows each: what a alone gets right are two recordings and the most of a third."""
    for run in two:
        file = run / "predictions.parquet"
        windows = pl.read_parquet(file).with_columns(recording=pl.col("id") // 5)
        windows.write_parquet(file)
    pair = compare(two).sections[0].pairs[0]
    by_recording = [1.0, 1.0, 0.8, *[0.0] * 15, -0.8, 0.0]
    assert (pair.how, pair.difference) == ("recordings", pytest.approx(0.1))
    assert pair.p == pytest.approx(paired(by_recording).p)
    assert pair.p > 5 * mcnemar_p(14, 4)


def test_a_baseline_is_compared_with_each_seed(methods):
    right = share(0.7)
    finished_run(methods / "forest", right, baseline="forest", validation=0.5)
    pairs = {(pair.first, pair.second): pair for pair in compare([methods]).sections[0].pairs}
    pair = pairs["cell=gru", "baseline=forest"]
    assert (pair.how, pair.runs) == ("sequences", (5, 5))
    assert pair.difference == pytest.approx(0.22)
    assert pair.p >= paired([accuracy - 0.7 for accuracy in GRU]).p
    assert "a baseline knows no seed" in shown(compare([methods]))


def test_two_seeds_are_too_few(methods):
    paths = [methods / f"{cell}{seed}" for cell in ("gru", "lstm") for seed in range(2)]
    pair = compare(paths).sections[0].pairs[0]
    assert (pair.how, pair.p, pair.interval95, pair.runs) == ("few", None, None, (2, 2))
    assert "too few: it takes 3 runs to tell" in shown(compare(paths))


def test_folds_share_training_sequences(tmp_path):
    for cell, accuracies in (("gru", GRU), ("lstm", LSTM)):
        for fold, accuracy in enumerate(accuracies):
            finished_run(
                tmp_path / f"{cell}{fold}",
                share(accuracy, n=100),
                cell=cell,
                dataset={"folds": 5, "fold": fold},
                ids=range(100 * fold, 100 * fold + 100),
            )
    pair = compare([tmp_path]).sections[0].pairs[0]
    expected = paired([a - b for a, b in zip(GRU, LSTM, strict=True)], folds=5)
    assert (pair.how, pair.interval95) == ("folds", expected.interval95)
    assert pair.disagreement.only_first == 50


def test_paths_with_the_same_configuration_are_compared_with_each_other(tmp_path):
    """Such as before and after a change of a cell of one's own."""
    for name, first in (("before", 0), ("after", 14)):
        for seed in range(3):
            finished_run(tmp_path / name / str(seed), share(0.9, first=first), seed=seed)
    pair = compare([tmp_path / "before", tmp_path / "after"]).sections[0].pairs[0]
    assert {pair.first, pair.second} == {str(tmp_path / "before"), str(tmp_path / "after")}


def test_the_same_data_in_another_place_are_the_same(tmp_path):
    a = finished_run(tmp_path / "a", share(0.9), data="my.csv", dataset={"path": "/here/my.csv"})
    b = finished_run(tmp_path / "b", share(0.8), cell="lstm", data="copy.csv", dataset={"path": "copy.csv"})
    (pair,) = compare([a, b]).sections[0].pairs
    assert {pair.first, pair.second} == {"cell=gru", "cell=lstm"}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            {"fingerprint": "e" * 64},
            "one has data with checksum ffffffff, the other data with checksum eeeeeeee",
        ),
        (
            {"data": "mnist", "dataset": {"name": "mnist"}, "fingerprint": "e"},
            "one has the data digits, the other the data mnist",
        ),
        (
            {"data": "digits, bitrev", "fingerprint": "e" * 64, "reading": {"permutation": "bitrev"}},
            "one has dataset.permutation=none, the other dataset.permutation=bitrev",
        ),
        ({"protocol": "tutorial"}, "one has the standard protocol, the other the tutorial protocol"),
        ({"dataset": {"split_seed": 1}}, "one has dataset.split_seed=0, the other dataset.split_seed=1"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_both_values(tmp_path, other, words):
    a = finished_run(tmp_path / "a", share(0.9))
    b = finished_run(tmp_path / "b", share(0.8), **{"cell": "lstm", **other})
    with pytest.raises(RnnclfError, match=f"a cannot be compared with .*b: {words}"):
        compare([a, b])


def test_a_path_that_has_nothing_to_be_compared_with_is_refused(methods, tmp_path):
    with pytest.raises(
        RnnclfError, match=r"gru0 holds a single configuration, cell=gru hidden=8: name another"
    ):
        compare([methods / "gru0"])
    for path, message in [
        (tmp_path / "nowhere", "does not exist: give the folder of a run"),
        (methods / "gru0" / "results.json", "is not the best checkpoint of a run"),
    ]:
        with pytest.raises(RnnclfError, match=message):
            compare([methods, path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(RnnclfError, match="empty holds no finished run"):
        compare([methods, tmp_path / "empty"])


def test_paths_may_overlap_and_a_checkpoint_stands_for_its_run(methods):
    (methods / "gru0" / "best.safetensors").touch()
    assert compare([methods / "gru0" / "best.safetensors", methods / "lstm0"]).sections[0].pairs[0].how == (
        "checkpoints"
    )
    assert compare([methods, methods / "gru0"]).to_dict() == compare([methods]).to_dict()


def test_without_predictions_it_says_what_to_do(two):
    (two[0] / "predictions.parquet").unlink()
    (section,) = compare(two).sections
    assert (section.pairs[0].p, section.pairs[0].how) == (None, "few")
    assert section.notes == (
        f"{two[0]} has no predictions of its test sequences, so it is not told where it differs:"
        f" rnnclf eval {two[0]} makes them.",
    )
    # as rnnclf eval leaves them
    folder = two[0] / "eval" / "2026-11-29_17-00-00"
    folder.mkdir(parents=True)
    entry = {"checkpoint": str(two[0] / "best.safetensors"), "split": "test", "other_data": False}
    write_json(folder / "evaluation.json", [entry])
    write_answers(folder / "predictions.parquet", answers(np.array(share(0.9))))
    assert compare(two).sections[0].pairs[0].p == mcnemar_p(14, 4)


def test_seeds_without_predictions_are_compared_by_their_accuracies(methods):
    (methods / "gru3" / "predictions.parquet").write_bytes(b"damaged")
    (section,) = compare([methods]).sections
    assert section.pairs[0].how == "seeds"
    assert section.pairs[0].p == pytest.approx(paired([a - b for a, b in zip(GRU, LSTM, strict=True)]).p)
    assert "rnnclf eval" in section.notes[0]


@pytest.fixture
def several(tmp_path) -> Path:
    """Three cells on four data sets."""
    for d in range(4):
        for m, cell in enumerate(("gru", "lstm", "basic")):
            finished_run(
                tmp_path / "all" / f"{d}{cell}",
                share(0.9 - 0.1 * m - 0.01 * d * (m + 1)),
                cell=cell,
                data=f"data{d}",
                fingerprint=f"{d}" * 64,
            )
    return tmp_path / "all"


@pytest.mark.long
def test_over_several_data_sets_methods_are_ranked(several):
    found = compare([several])
    assert len(found.sections) == 4
    assert dict(zip(found.across.methods, found.across.ranks.mean, strict=True)) == {
        "cell=gru": 1.0,
        "cell=lstm": 2.0,
        "cell=basic": 3.0,
    }
    text = shown(found, 120)
    # three pairs: 3 · 2 / 2^7 = 0.047
    assert (
        "4 data sets are too few to tell any pair apart: Wilcoxon's test with Holm's correction takes 7"
        in text
    )


@pytest.mark.long
def test_the_diagram_is_an_image_without_scripts(several, cli, tmp_path):
    for status in several.glob("*/status.json"):
        plain = json.loads(status.read_text())["configuration"]
        readout = "<script>\x1b\u202e&\uffff" if plain["cell"]["name"] == "basic" else "last"
        rewrite(status, configuration=plain | {"readout": readout})
    done = cli("compare", several, "--svg", tmp_path / "cd.svg")
    assert (done.exit_code, done.stderr) == (0, "")
    root = ElementTree.fromstring((tmp_path / "cd.svg").read_text())
    kinds = {element.tag.partition("}")[2] for element in root.iter()}
    assert kinds == {"svg", "title", "rect", "line", "text"}
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert "cell=gru readout=last  1.00" in texts
    assert any("<script>" in text for text in texts)


def test_a_diagram_of_one_data_set_is_refused(two, cli):
    done = cli("compare", *two, "--svg", "cd.svg")
    assert done.exit_code == 2
    assert "takes at least three configurations" in done.stderr
    assert not Path("cd.svg").exists()


HOSTILE = ("\x1b[31m=cmd()|' /C calc'!A0", "\u202e<script>alert(1)</script>", "\\input{/etc/passwd}$%&_#{}~^")


@pytest.mark.parametrize("form", ["", "--md", "--tex", "--csv", "--json"])
def test_nothing_in_names_is_run(tmp_path, cli, form):
    ids = [f"=1+1\x1b]0;x\x07{number}" for number in range(30)]
    for cell, first in (("gru", 0), ("lstm", 5)):
        options = {"cell": cell, "classes": HOSTILE, "ids": ids, "readout": f"{HOSTILE[2]}=\n{cell}"}
        finished_run(tmp_path / cell, share(0.5, 30, first), data=HOSTILE[0], **options)
    done = cli("compare", tmp_path, *filter(None, [form]))
    assert done.exit_code == 0, done.output
    assert not {"\x1b", "\x07", "\u202e"} & {*done.output}
    if form == "--json":
        pair = json.loads(done.stdout)["sections"][0]["pairs"][0]
        assert {row["label"] for row in pair["disagreement"]["by_class"]} == {*HOSTILE}
    if form == "--csv":
        (row,) = csv.DictReader(io.StringIO(done.stdout))
        assert not row["data"].startswith("=")
    if form == "--tex":
        rows = [line for line in done.stdout.splitlines() if "readout" in line]
        assert rows
        assert not any("\\input" in line for line in rows)
    if form == "--md":
        assert "<script>" not in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["equal=half"], "equal must be a number of percentage points such as 0.5, got 'half'."),
        (["equl=1"], "'equl=1' is neither a path nor equal=POINTS. Did you mean 'equal'?"),
        (["--md", "--csv"], "Give one of --md, --tex, --csv and --json."),
    ],
)
def test_wrong_words_are_told(two, cli, words, message):
    done = cli("compare", *two, *words)
    assert (done.exit_code, done.stderr) == (2, f"error: {message}\n")
