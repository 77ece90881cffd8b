"""`rnnclf runs`: the list of what lies below a folder."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pytest

from rnnclf.workflows.listing import Listed, list_runs
from rnnclf.workflows.runs import RunFolder
from tests.terminals import lines_of
from tests.workflows.finished_runs import finished_run, rewrite, share
from tests.workflows.finished_sweeps import Done, finished_sweep

DAY = "outputs/2026-11-29"
T0 = 1_700_000_000.0
HOSTILE = "\x1b[31mred\n'$(touch x)' =1+1 \u202e <script> [bold]"


def run_at(path: str, minute: int, words: tuple[str, ...] = ("cell=gru",), name: str | None = None) -> Path:
    """A finished run that began in this minute."""
    run = finished_run(Path(path), share(0.9), predictions=False, started=T0 + 60 * minute)
    plain = json.loads((run / "status.json").read_text())["configuration"] | {"name": name}
    own = [*words, *([f"name={name}"] if name else [])]
    rewrite(run / "status.json", overrides=own, configuration=plain)
    return run


def sweep_at(path: str, minute: int) -> Path:
    words = [(f"cell={cell}", f"seed={seed}") for cell in ("gru", "lstm") for seed in range(4)]
    sweep = finished_sweep(
        Path(path), *(Done(each, 0.8, 0.7, error="" if n else "x") for n, each in enumerate(words))
    )
    for number in range(len(words)):
        rewrite(sweep / str(number) / "status.json", started=T0 + 60 * minute + number)
    best = {"rank": 1, "test": {"accuracy": 0.75}}
    (sweep / "sweep.json").write_text(json.dumps({"sections": [{"configurations": [best]}]}))
    return sweep


@pytest.fixture
def outputs(tmp_path) -> Path:
    """A run, a sweep with a job that failed, an interrupted run, an evaluation, a baseline, in this order."""
    run_at(f"{DAY}/10-00-00_first-try", 0, ("cell=gru", "hidden=16"), "first-try")
    sweep_at(f"{DAY}/10-01-00", 1)
    interrupted = run_at("outputs/mine", 2, name="mine-too")
    rewrite(interrupted / "status.json", state="interrupted")
    rows = "epoch,validation_accuracy\n1,0.5\n2,0.625\n3,nan\n"
    (interrupted / "epochs.csv").write_text(rows)
    evaluation = Path(DAY) / "10-03-00"
    evaluation.mkdir()
    score = {"checkpoint": "outputs/mine/best.safetensors", "split": "test", "accuracy": 0.5}
    (evaluation / "evaluation.json").write_text(json.dumps([score]))
    os.utime(evaluation / "evaluation.json", (T0 + 180, T0 + 180))
    baseline = run_at(f"{DAY}/10-04-00-dtw", 4, ("classifiers=dtw",))
    rewrite(baseline / "status.json", baseline="dtw")
    return Path("outputs")


def told(listed: Listed) -> tuple[object, ...]:
    return listed.kind, listed.state, listed.name, " ".join(listed.words), listed.split, listed.accuracy


def test_what_lies_there_is_listed_the_newest_last(outputs):
    found = list_runs(outputs)
    assert [told(each) for each in found] == [
        ("run", "done", "first-try", "cell=gru hidden=16", "test", 0.9),
        ("sweep", "failed", None, "-m cell=gru,lstm seed=range(4)", "test", 0.75),
        ("run", "interrupted", "mine-too", "cell=gru", "validation", 0.625),
        ("evaluation", "done", None, "eval outputs/mine/best.safetensors split=test", "test", 0.5),
        ("baseline", "done", None, "baseline classifiers=dtw", "test", 0.9),
    ]
    assert found[1].jobs == (("done", 7), ("failed", 1))
    assert [each.started - T0 for each in found] == [0, 60, 120, 180, 240]


def test_a_pipe_gets_a_line_for_each_and_other_programs_csv_and_json(cli, outputs):
    lines = cli("runs").stdout.splitlines()
    assert len(lines) == 5
    assert [line.split()[0] for line in lines[:3]] == [
        f"{DAY}/10-00-00_first-try",
        f"{DAY}/10-01-00",
        "outputs/mine",
    ]
    assert "failed, 7 of 8 jobs" in lines[1]
    assert "mine-too  interrupted" in lines[2]
    assert "validation 62.50 %" in lines[2]
    assert "first-try" not in lines[0].split(maxsplit=1)[1]  # its path says it
    rows = list(csv.DictReader(io.StringIO(cli("runs", "--csv").stdout)))
    assert [(row["kind"], row["jobs"], row["done"]) for row in rows[:2]] == [
        ("run", "", ""),
        ("sweep", "8", "7"),
    ]
    found = json.loads(cli("runs", "outputs", "--json").stdout)
    assert [each["path"] for each in found] == [row["path"] for row in rows]
    assert (found[0]["name"], found[1]["jobs"]) == ("first-try", {"done": 7, "failed": 1})


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_path_is_broken_in_a_terminal(cli, monkeypatch, outputs, terminal, width):
    monkeypatch.setenv("COLUMNS", str(width))
    name = "a-name-of-sixty-letters-" + "x" * 36
    run_at(f"{DAY}/10-05-00_{name}", 5, tuple(f"cell.option{n}=0.5" for n in range(20)), name)
    lines = lines_of(cli("runs").stdout)
    paths = [str(each.path) for each in list_runs(outputs)]
    assert [path for path in paths if sum(path in line.split() for line in lines) == 1] == paths
    assert max(len(line) for line in lines if not line.startswith("outputs")) <= width
    assert "cell.option19=0.5" in "".join("".join(lines).split())


def test_damaged_folders_are_listed_and_end_nothing(cli, outputs):
    day = outputs / "damaged"
    for name, content in (("text", b"{"), ("list", b"[]"), ("deep", b"[" * 10_000), ("bytes", b"\xff\xfe")):
        (day / name).mkdir(parents=True)
        (day / name / "status.json").write_bytes(content)
    odd = {"state": 3, "started": 1e299, "overrides": "no list", "configuration": {"name": ["x"]}}
    (day / "odd").mkdir()
    (day / "odd" / "status.json").write_text(json.dumps(odd))
    (day / "sweep").mkdir()
    (day / "sweep" / "jobs.json").write_text("{")
    (day / "empty").mkdir()
    (day / "loop").symlink_to(outputs, target_is_directory=True)
    (day / "best").mkdir()
    (day / "best" / "best.safetensors").write_bytes(b"")
    done = cli("runs", "--json")
    assert done.exit_code == 0, done.output
    found = {Path(each["path"]).name: each for each in json.loads(done.stdout)}
    assert {name for name in found if "damaged" in found[name]["path"]} == {
        *("text", "list", "deep", "bytes", "odd", "sweep", "best")
    }
    assert {found[name]["state"] for name in ("text", "list", "deep", "bytes", "odd", "best")} == {"lost"}
    assert cli("runs").exit_code == 0


def test_text_from_anywhere_is_inert(cli, terminal, tmp_path):
    run = run_at("outputs/\x1b[31mred\n", 0, (f"cell={HOSTILE}", *["x=1"] * 1000))
    rewrite(run / "status.json", state=HOSTILE, configuration={"name": HOSTILE})
    for words in ((), ("--csv",), ("--json",)):
        shown = cli("runs", *words).stdout
        assert "\x1b[31m" not in shown
        assert "\u202e" not in shown
    assert "[bold]" in cli("runs").stdout
    assert json.loads(cli("runs", "--json").stdout)[0]["name"] is None
    (row,) = csv.DictReader(io.StringIO(cli("runs", "--csv").stdout))
    assert not row["state"].startswith(("=", "\x1b"))


def test_a_sweep_is_running_while_a_process_holds_it(tmp_path):
    sweep = sweep_at("sweep", 0)
    rewrite(sweep / "1" / "status.json", state="waiting")
    assert list_runs(sweep)[0].state == "interrupted"
    with RunFolder(sweep).locked():
        assert list_runs(sweep)[0].state == "running"


def test_nothing_there_is_a_sentence(cli, tmp_path):
    assert cli("runs").stderr == "error: outputs does not exist: give a folder of runs.\n"
    Path("outputs").mkdir()
    assert (cli("runs").stdout, cli("runs", "--json").stdout) == ("no runs below outputs\n", "[]\n")
    assert cli("runs", "--json", "--csv").exit_code == 2


def test_inspect_calls_the_folder_of_an_evaluation_what_it_is(cli, outputs):
    record = Path(DAY) / "10-03-00" / "evaluation.json"
    (score,) = json.loads(record.read_text())
    model = {
        "cell": "gru",
        "hidden": 8,
        "dataset": "digits",
        "correct": 1,
        "total": 2,
        "interval95": [0.1, 0.9],
    }
    record.write_text(json.dumps([score | model]))
    assert f"{record.parent}  evaluation of 1 checkpoint\n" in cli("inspect", record.parent).stdout
    record.write_text("[")
    done = cli("inspect", record.parent)
    assert (done.exit_code, done.stderr) == (
        2,
        f"error: {record.parent} holds an evaluation, but its evaluation.json is damaged.\n",
    )
