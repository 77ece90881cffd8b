"""The commands themselves: -h, words that are no command, help texts that fit."""

from __future__ import annotations

import pytest

COMMANDS = ("", "train", "resume", "eval", "inspect", "list", "show", "test-cell", "bench", "data")
COMMANDS += ("data check", "data make", "export", "predict", "compare", "board", "runs", "track")
COMMANDS += ("ensemble",)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_by_the_short_flag_with_nothing_cut(cli, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    done = cli(*command.split(), "-h")
    assert (done.exit_code, done.stderr) == (0, "")
    assert max(len(line.rstrip()) for line in done.stdout.splitlines()) <= 80
    assert "…" not in done.stdout.replace("optimizers …", "").replace("dataset, optimizer …", "")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("evaluate outputs/x", "rnnclf eval"),
        ("fit", "rnnclf train"),
        ("test", "rnnclf eval"),
        ("classify x", "rnnclf predict"),
        ("trian cell=lstm", "rnnclf train"),
        ("check my.csv", "rnnclf data check"),
        ("sweep", "rnnclf train -m"),
        ("help", "rnnclf --help"),
        ("cell=lstm epochs=3", "rnnclf train cell=lstm epochs=3"),
        ("data chek my.csv", "rnnclf data check"),
    ],
)
def test_a_word_that_is_no_command_names_the_nearest(words, meant):
    from typer.testing import CliRunner

    from rnnclf.cli import app

    done = CliRunner().invoke(app, words.split(), prog_name="rnnclf")
    above = "rnnclf data" if words.startswith("data") else "rnnclf"
    word = words.removeprefix("data ").split()[0]
    message = f"No command named '{word}'. Did you mean '{meant}'? All commands: {above} --help."
    assert (done.exit_code, done.stderr) == (2, f"error: {message}\n")


def test_a_word_like_no_command_is_refused_all_the_same(cli):
    done = cli("zzz")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: No command named 'zzz'. All commands:")
