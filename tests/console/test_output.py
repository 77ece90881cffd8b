"""Every command: strict JSON on request, any encoding, nothing in a name that acts as a command."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from rnnclf.cli import app, main
from rnnclf.console.screen import print_error, print_json, print_plain, short
from rnnclf.escaping import LogFormatter, json_text, one_line, spreadsheet_cell
from rnnclf.files import write_json
from rnnclf.system import startup
from rnnclf.workflows.runs import read_csv, write_csv
from tests.conftest import logging_restored

EVIL = ("=cmd|' /C calc'!A0", "+1+2", "-1", "@x", "a\nb", "\x1b[31mred", "\x9b1m\u202e", "Größe 猫")
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


def strictly(text: str) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def ground(tmp_path_factory) -> Path:
    """A folder with a table of classes with strange names, and a run that was trained on it."""
    folder = tmp_path_factory.mktemp("ground")
    with open(folder / "my.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "=a\x1b[1m", "label"])
        for n in range(20 * len(EVIL)):
            for step in range(3):
                writer.writerow([n, n % len(EVIL) + step * (2 - step) / 10, EVIL[n % len(EVIL)]])
    words = ["dataset=table", f"dataset.path={folder}/my.csv", "hidden=4", "epochs=1"]
    with logging_restored():
        done = CliRunner(charset="ascii").invoke(
            app, ["train", *words, "threads=1", f"hydra.run.dir={folder}/run", "--json"]
        )
    assert done.exit_code == 0, done.output
    (folder / "train.json").write_text(done.stdout)
    return folder


def commands(ground: Path, new: str) -> dict[str, tuple[object, ...]]:
    """A quick use of every command but train; `new` is the name of a file to be made."""
    return {
        "resume": ("resume", ground / "run"),
        "eval": ("eval", ground / "run", "--output", "evaluations"),
        "inspect": ("inspect", ground / "run"),
        "list": ("list",),
        "show": ("show", "cell", "lem"),
        "data check": ("data", "check", ground / "my.csv"),
        "data make": ("data", "make", new, "--sequences", 30),
        "board": ("board", ground),
        "runs": ("runs", ground),
    }


SLOW = {
    "test-cell",
    "bench",
    "baseline",
    "export",
    "predict",
    "stream",
    "compare",
    "report",
    "track",
    "ensemble",
    "tune",
    "work",
}  # seconds each, or lines of JSON: what they print is tested with what they do


def all_commands() -> dict[str, Any]:
    found = {}
    for name, command in typer.main.get_command(app).commands.items():
        inner = getattr(command, "commands", {"": command})
        found |= {f"{name} {word}".strip(): one for word, one in inner.items()}
    return found


@pytest.mark.long
def test_every_command_takes_json(ground):
    for name, command in all_commands().items():
        assert "--json" in [word for param in command.params for word in param.opts], name
    assert set(all_commands()) == {"train", *commands(ground, ""), *SLOW}


@pytest.mark.long
def test_every_json_is_strict(cli, ground):
    strictly((ground / "train.json").read_text())
    for name, words in commands(ground, "made.csv").items():
        done = cli(*words, "--json")
        assert done.exit_code == 0, (name, done.output)
        strictly(done.stdout)
    for path in (*ground.rglob("*.json"), *Path.cwd().rglob("*.json")):
        strictly(path.read_text(encoding="utf-8"))


def test_a_channel_without_values_has_no_mean_in_json(cli):
    rows = [f"{n},{step},{n + step * step / 3},,{'ab'[n % 2]}" for n in range(40) for step in range(3)]
    Path("my.csv").write_text("\n".join(["id,time,x,none,label", *rows, ""]))
    done = cli("data", "check", "my.csv", "--json")
    assert strictly(done.stdout)["channels"][1]["mean"] is None


@pytest.mark.long
def test_every_command_prints_in_ascii(ground, monkeypatch):
    monkeypatch.setattr(startup, "end_with", lambda code: None)
    for name, words in commands(ground, "other.csv").items():
        for extra in ([], ["--json"]):
            if name == "data make" and extra:
                continue
            written = io.BytesIO()
            stream = io.TextIOWrapper(written, "ascii", write_through=True)
            with monkeypatch.context() as patch:
                patch.setattr(sys, "stdout", stream)
                patch.setattr(sys, "stderr", stream)
                patch.setattr(sys, "argv", ["rnnclf", *map(str, words), *extra])
                with pytest.raises(SystemExit) as end:
                    main()
            assert end.value.code == 0, (name, written.getvalue())
            assert len(written.getvalue()) > 50, name


@pytest.mark.long
def test_nothing_in_a_name_acts_as_a_command(cli, ground):
    shown = [cli(*words).output for words in commands(ground, "more.csv").values()]
    files = [
        path for path in (*(ground / "run").rglob("*"), *Path("evaluations").rglob("*")) if path.is_file()
    ]
    texts = [p for p in files if p.suffix in (".txt", ".svg", ".json", ".csv", ".log", ".yaml")]
    assert len(texts) >= 10
    for text in (*shown, *(path.read_text(encoding="utf-8") for path in texts)):
        assert not RAW.search(text)
    (table,) = Path("evaluations").rglob("classes.csv")
    names = [row["name"] for row in read_csv(table)]
    assert {"'=cmd|' /C calc'!A0", "'+1+2", "-1", "'@x", "a b", "Größe 猫"} <= set(names)


# The parts


def test_what_is_not_finite_is_null_in_json(tmp_path, capsys):
    value = {"a": [math.nan, -math.inf, 1.5], "b": (math.inf, {"c": "\x1b\x9b\u202e\n"}), "d": True}
    expected = {"a": [None, None, 1.5], "b": [None, {"c": "\x1b\x9b\u202e\n"}], "d": True}
    write_json(tmp_path / "a.json", value)
    print_json(value)
    for text in ((tmp_path / "a.json").read_text(encoding="utf-8"), capsys.readouterr().out):
        assert strictly(text) == expected
        assert not RAW.search(text)


def test_json_for_other_encodings_is_ascii():
    assert json_text("Größe 猫\x7f", ascii_only=True).isascii()
    assert json.loads(json_text("Größe 猫\x7f", ascii_only=True)) == "Größe 猫\x7f"


@pytest.mark.parametrize("print_line", [print_plain, print_error])
def test_a_name_cannot_fake_a_line(print_line, capsys):
    print_line("class 'a\nb\r\n  c\u2028d\x1b[2J' is empty")
    captured = capsys.readouterr()
    assert "class 'a b c d�[2J' is empty" in captured.out + captured.err


@pytest.mark.parametrize("number", ["-1", "+1", "-1.5e-3", "-.5", "1", -1, None, "a=b", "x@y"])
def test_numbers_and_plain_names_stay_as_they_are_in_spreadsheets(number):
    assert spreadsheet_cell(number) == number


@pytest.mark.parametrize("formula", ["=1", "+a", "-a", "@a", "-", "+1+2", "-inf"])
def test_what_a_spreadsheet_would_run_gets_an_apostrophe(formula, tmp_path):
    write_csv(tmp_path / "a.csv", [{"name": formula, "number": -1.5}])
    assert (tmp_path / "a.csv").read_text() == f"name,number\n'{formula},-1.5\n"


def test_what_only_looks_like_a_formula_behind_a_line_break_is_one():
    assert spreadsheet_cell("\n=1") == "' =1"


def test_a_record_of_the_log_is_one_line_and_a_traceback_is_indented():
    formatter = LogFormatter("%(levelname)s %(message)s")
    try:
        raise ValueError("x\nINFO forged\x1b[2J")
    except ValueError:
        record = logging.LogRecord("", logging.ERROR, "", 0, "a\nINFO forged", None, sys.exc_info())
    first, *rest = formatter.format(record).split("\n")
    assert first == "ERROR a INFO forged"
    assert all(line.startswith("  ") for line in rest)
    assert not RAW.search("".join(rest))
    assert one_line("a\n") == "a "


def test_a_path_with_control_characters_is_shown_as_a_shell_reads_it():
    assert short(Path("a\nb'c\\d\x1b")) == r"$'a\012b\047c\134d\033'"
