"""Files of strangers: what they are is said, what they claim is checked, nothing in them is run."""

from __future__ import annotations

import json
import os
import pickle
import re
import resource
import socket
import struct
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.text import Text

from benchmarks.reliability import fuzz
from rnnclf import checkpoint
from rnnclf.cells import CELLS
from rnnclf.checkpoint import PLACEHOLDER, sealed
from rnnclf.console.screen import SafeConsole, print_error, print_json, print_plain
from rnnclf.errors import CheckpointError
from rnnclf.files import write_json
from rnnclf.model import SequenceClassifier
from rnnclf.workflows.runs import RunFolder
from tests.conftest import ROOT
from tests.containers import Opens, container

SMALL = ("dataset=digits", "hidden=4", "epochs=1", "threads=1", "dataset.test=1500")


def changed(path: Path, change) -> Path:
    """The checkpoint with `change(header, table)` done to it, and a checksum that is right."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    table = json.loads(content[8 : 8 + length])
    header = json.loads(table.pop("__metadata__")["rnnclf"])
    header["sha256"] = PLACEHOLDER
    text = change(header, table)
    metadata = {"__metadata__": {"rnnclf": text if isinstance(text, str) else json.dumps(header)}}
    raw = json.dumps({**metadata, **table}).encode()
    path.write_bytes(sealed(struct.pack("<Q", len(raw)) + raw + content[8 + length :]))
    return path


# What eval says of them: one sentence, exit code 2


def refusal(cli, path: Path) -> str:
    """The one line that eval prints of it, and inspect, where that refuses it, too."""
    done = cli("eval", path)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"error: {path}") or f" {path}" in done.stderr
    looked = cli("inspect", path)
    assert looked.exit_code in (0, 2), looked.output
    return done.stderr


def put(header, key: str, value) -> None:
    """Sets a value deep in the configuration: cell.hidden_size."""
    *way, last = key.split(".")
    node = header["config"]
    for step in way:
        node = node[step]
    node[last] = value


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("device", "${oc.env:HOME}", "device holds '${oc.env:HOME}', which is not a plain value"),
        ("dataset.root", "${oc.env:HOME}", "dataset=digits has no option 'root'"),
        ("cell._target_", "os.system", "cell=gru has no option '_target_'"),
        ("_target_", "os.system", "No key named '_target_'"),
        ("cell.name", "os.system", "No cell named 'os.system'"),
        ("cell", "gru", "The configuration is incomplete"),
        ("hidden", 10**9, "hidden must be at least 1 and at most 1000000, got 1000000000"),
        ("hidden", 10**400, "hidden must be at least 1 and at most 1000000"),
        ("cell.hidden_size", 1_000_000, "head.weight should be (10, 1000000) float32"),
        ("cell.hidden_size", -1, "cell.hidden_size must be at least 1"),
        ("layers", 10**6, "layers must be at least 1 and at most 1000"),
        pytest.param("layers", 1000, "should be", marks=pytest.mark.long),
        ("optimizer.lr", 10**400, "too large"),
        ("epochs", 10**30, "epochs must be at least 1"),
        ("plugins", ["antigravity", {"name": "x"}], "plugins must be a list of module names"),
    ],
)
def test_a_config_that_asks_for_more_is_refused(cli, best, key, value, message):
    assert message in refusal(cli, changed(best, lambda header, table: put(header, key, value)))


@pytest.mark.parametrize("key", ["shift_C", "scale_C"])
def test_a_number_too_large_for_a_float_is_refused(cli, best, key):
    def enlarge(header, table):
        header["preparation"][key][0] = 10**400

    assert f"{best} is damaged: The preparation of the data" in refusal(cli, changed(best, enlarge))


@pytest.mark.long
def test_plugins_that_a_checkpoint_names_are_not_imported(cli, best, tmp_path):
    (tmp_path / "evil.py").write_text("open('canary', 'w')")
    changed(best, lambda header, table: put(header, "plugins", ["evil"]))
    assert cli("eval", best).exit_code == 0
    assert "evil" not in sys.modules
    assert not Path("canary").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(data_offsets=[0, 10**12]), "has an invalid entry for the tensor"),
        (lambda t: t.update(shape=[2.5e11, 1]), "has an invalid entry for the tensor"),
        (lambda t: t.update(shape=[-1, -12]), "has an invalid entry for the tensor"),
        (lambda t: t.update(shape=[0, 2**63]), "has an invalid entry for the tensor"),
        (
            lambda t: t.update(shape=[2**62, 0, 2**62], data_offsets=[0, 0]),
            "has an invalid entry for the tensor",
        ),
        (lambda t: t.update(shape=[1] * 100_000), "has an invalid entry for the tensor"),
        (lambda t: t.update(shape=[True]), "has an invalid entry for the tensor"),
        (lambda t: t.update(dtype="OBJECT"), "has an invalid entry for the tensor"),
        (lambda t: t.update(dtype=["F32"]), "has an invalid entry for the tensor"),
        (lambda t: t.clear(), "has an invalid entry for the tensor"),
        (lambda t: t.update(shape=[10, 25 * 10**9], data_offsets=[0, 10**12]), "overlap or leave gaps"),
        (lambda t: t.update(shape=[0], data_offsets=[4, 4]), "overlap or leave gaps"),
    ],
)
def test_a_tensor_that_cannot_be_is_refused(cli, best, change, message):
    def to_head(header, table):
        change(table["model.head.weight"])

    assert f"{best} is damaged: " in (said := refusal(cli, changed(best, to_head)))
    assert message in said


def one_tensor_of_a_terabyte(header, table):
    table.clear()
    table["model.head.weight"] = {"dtype": "F32", "shape": [10, 25 * 10**9], "data_offsets": [0, 10**12]}


def test_a_claim_of_a_terabyte_is_refused_before_memory_is_taken(cli, best):
    size = best.stat().st_size
    said = refusal(cli, changed(best, one_tensor_of_a_terabyte))
    assert "its header claims 1.0 TB of tensors, but the file has" in said
    assert best.stat().st_size < size + 1000


def test_a_terabyte_of_nothing_is_refused_before_memory_is_taken(cli, best):
    """A file with a hole takes no room on the disk."""
    changed(best, one_tensor_of_a_terabyte)
    length = struct.unpack("<Q", best.read_bytes()[:8])[0]
    try:
        os.truncate(best, 8 + length + 10**12)
    except OSError as error:
        pytest.skip(f"no files of a terabyte here: {error}")
    done = cli("eval", best)
    assert done.exit_code == 2
    assert "takes 2.0 TB of memory; this machine has" in done.stderr  # read, and made into tensors


def test_a_file_that_fits_into_memory_but_once_is_refused(cli, best, monkeypatch):
    size, sysconf = best.stat().st_size, os.sysconf
    pages = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 2 * size - 1}
    monkeypatch.setattr(os, "sysconf", lambda name: pages.get(name) or sysconf(name))
    with pytest.raises(CheckpointError, match=r"takes .* kB of memory; this machine has"):
        checkpoint.load(best)
    pages["SC_PHYS_PAGES"] += 1
    checkpoint.load(best)


CRAFTED = {
    "pickle": lambda path: path.write_bytes(pickle.dumps(fuzz.Payload())),
    "header-of-1-TB": lambda path: path.write_bytes(struct.pack("<Q", 10**12) + path.read_bytes()[8:]),
    "tensor-of-1-TB": lambda path: changed(path, one_tensor_of_a_terabyte),
    "environment": lambda path: changed(path, lambda header, _: put(header, "device", "${oc.env:HOME}")),
    "target": lambda path: changed(path, lambda header, _: put(header, "cell._target_", "os.system")),
}
"""What is made of a good checkpoint, to harm who receives it."""


def in_the_docs(path: Path) -> list[tuple[str, int, list[str]]]:
    """What docs/reliability.md says of a file: the command, its exit code, what it prints in pieces."""
    page = (ROOT / "docs" / "reliability.md").read_text()
    examples = re.findall(
        rf"^\$ rnnclf (\w+) {path} +# exit code (\d)\n(.*?)(?=^\$ |^```)", page, re.M | re.S
    )
    return [(command, int(code), said.split("…")) for command, code, said in examples]


@pytest.mark.parametrize("kind", CRAFTED)
def test_of_crafted_files_the_commands_say_what_the_docs_say(cli, best, monkeypatch, kind):
    monkeypatch.setenv("HOME", "/of/the/secret")
    CRAFTED[kind](path := best.rename(f"{kind}.safetensors"))
    path = Path(path.name)
    examples = in_the_docs(path)
    assert [name for name, *_ in examples] == ["inspect", "eval"]
    for name, code, pieces in examples:
        done = cli(name, path)
        assert done.exit_code == code
        if len(pieces) == 1:
            assert done.output == pieces[0]
        for piece in pieces:  # lines are broken elsewhere
            assert " ".join(piece.split()) in " ".join(done.output.split())
        assert "secret" not in done.output
    assert not Path(fuzz.CANARY).exists()


@pytest.mark.parametrize(
    "text",
    [
        '{"format": 3, "format": 3}',
        '{"format": 3, "epoch": NaN}',
        '{"format": 3, "epoch": 1e999}',
        '{"format": 3, "it": "\\ud800"}',
        '{"format": 3, "it": ' + "[" * 40 + "]" * 40 + "}",
        '{"format": 3, "it": ' + "[" * 10**5 + "]" * 10**5 + "}",
    ],
    ids=["twice", "NaN", "infinity", "half a character", "nested", "deeply nested"],
)
def test_json_that_we_never_write_is_refused(cli, best, text):
    assert "is not a checkpoint of rnnclf" in refusal(cli, changed(best, lambda header, table: text))


@pytest.mark.slow
@pytest.mark.long
def test_a_million_classes_are_refused_without_a_model_for_them(cli, best):
    def many(header, table):
        header["classes"] = [str(n) for n in range(10**6)]

    started = time.monotonic()
    assert "head.bias should be (1000000,) float32, but the file has (10,) float32" in refusal(
        cli, changed(best, many)
    )
    assert time.monotonic() - started < 20


def test_ten_million_classes_are_no_header(cli, best):
    best.write_bytes(container(b'{"__metadata__":{"rnnclf":"' + b"0," * 10**7 + b'"}}'))
    assert "is not a checkpoint of rnnclf" in refusal(cli, best)


def test_a_pickle_with_the_name_of_a_checkpoint_is_not_opened(cli, tmp_path):
    path = tmp_path / "best.safetensors"
    path.write_bytes(pickle.dumps(Opens(tmp_path / "opened")))
    assert refusal(cli, path) == f"error: {path} is not a checkpoint of rnnclf.\n"
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("status.json", b'{"state": "done", "it": "' + b"a" * 2**24 + b'"}'),
        ("results.json", b"[" + b"{}," * 2**23 + b"{}]"),
        ("epochs.csv", b"epoch\n" + b"1\n" * 300_000),
    ],
)
def test_a_record_that_would_fill_the_memory_is_as_good_as_none(cli, run, name, content):
    (run / name).write_bytes(content)
    found = json.loads(cli("inspect", run, "--json").stdout)
    gone = {"status.json": found["status"], "results.json": found["results"], "epochs.csv": found["epochs"]}
    assert gone[name] in ({}, 0)
    assert sum(map(bool, gone.values())) == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_not_waited_for(cli, run):
    (run / "status.json").unlink()
    os.mkfifo(run / "status.json")
    os.mkfifo(run / "previous.safetensors")
    done = cli("inspect", run)
    assert done.exit_code == 2
    assert "previous.safetensors is not a regular file" in done.stderr


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_no_command_waits_for_what_is_named_like_a_file_of_a_run(cli, run, kind):
    names = [path.name for path in RunFolder(run).files if path.name != "best.safetensors"]
    status = (run / "status.json").read_text()
    for name in (*names, ".lock", "multirun.yaml", "jobs.json", "evaluation.json"):
        (run / name).unlink(missing_ok=True)
        if kind == "pipe":
            os.mkfifo(run / name)
        else:
            server = socket.socket(socket.AF_UNIX)
            server.bind(os.path.relpath(run / name))
            server.close()
    assert "is not a regular file" in cli("inspect", run).stderr
    assert cli("eval", run).exit_code == 0
    for words in (("resume", run), ("train", "dataset=digits", f"hydra.run.dir={run}")):
        assert cli(*words).exit_code == 2, words
    for name in names:
        os.unlink(run / name)
    (run / "status.json").write_text(status)
    assert re.search(r"\.lock: it is not a regular file|\.lock: No such device", cli("resume", run).stderr)


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_log_that_is_a_pipe_is_refused_before_anything_opens_it(cli, two_jobs):
    (two_jobs / "1" / "results.json").unlink()
    (two_jobs / "1" / "train.log").unlink()
    os.mkfifo(two_jobs / "1" / "train.log")
    for path in (two_jobs, two_jobs / "1"):
        done = cli("resume", path)
        assert (done.exit_code, "train.log: it is a pipe, not a file." in done.stderr) == (2, True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("victim")], ids=["pipe", "link"])
def test_a_temporary_name_that_is_taken_is_not_written_into(tmp_path, make):
    (tmp_path / "victim").write_text("mine")
    make(tmp_path / f".it.json.{os.getpid()}.tmp")
    write_json(tmp_path / "it.json", {"a": 1})
    assert json.loads((tmp_path / "it.json").read_text()) == {"a": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["it.json", "victim"]
    assert (tmp_path / "victim").read_text() == "mine"


@pytest.mark.long
def test_data_that_cannot_be_are_refused_in_words(cli, best):
    for path in ("/dev/zero", "~nosuchuser/x", "a" * 5000, "\0"):

        def elsewhere(header, table, path=path):
            header["config"]["dataset"] = {"name": "arrays", "path": path}
            header["reading"] = {}

        done = cli("eval", changed(best, elsewhere))
        assert done.exit_code == 2, path
        assert done.stderr.count("\n") == 1
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", CELLS.names())
def test_a_large_model_takes_memory_only_when_its_weights_are_there(name):
    hidden = 1_000_000 - 1_000_000 % CELLS[name]().multiple
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with torch.device("meta"):
        model = SequenceClassifier(CELLS[name](hidden_size=hidden), input_size=28, classes=10)
    assert model.parameter_count() > hidden
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
    assert time.monotonic() - started < 2


# Nothing that a terminal would obey reaches it

EVIL = "\x1b]0;owned\x07\x9b31m\r\u202e[/red][bold]:boom:\ud800"


def test_what_a_terminal_would_obey_is_shown_as_a_mark(capsys):
    SafeConsole(width=200).print(Text(EVIL), EVIL, f"[red]{EVIL}")
    print_plain(EVIL)
    print_error(EVIL)
    print_json({EVIL: [EVIL]})
    shown = "".join(capsys.readouterr())
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800]", shown)
    assert shown.count("[/red][bold]:boom:") == 7
    shown.encode()


def test_json_on_the_screen_means_what_it_meant(capsys):
    value = {"a\x9bb": ["\u202e", "é", "\n", 'x"y', "\x1b"]}
    print_json(value)
    assert json.loads(capsys.readouterr().out) == value


def test_an_error_of_a_megabyte_is_cut(capsys):
    print_error("a" * 10**6 + "z")
    shown = capsys.readouterr().err
    assert len(shown) < 3000
    assert shown.endswith("z\n")


def test_names_of_classes_cannot_write_to_the_terminal(cli, best):
    names = [f"{n}\x1b]0;owned\x07[/red]" for n in range(10)]
    changed(best, lambda header, table: header.update(classes=names))
    done = cli("inspect", best)
    assert done.exit_code == 0
    assert "0�]0;owned" in done.stdout
    assert not {"\x1b", "\x07"} & set(done.stdout)
    assert "\x1b" not in refusal(cli, best)


# By the hundred; benchmarks/reliability/fuzz.py does it by the ten thousand


@pytest.fixture(scope="module")
def watched(ground):
    fuzz.watch()
    return ground


@pytest.mark.long
@pytest.mark.parametrize(
    ("target", "count"),
    {
        **{"checkpoint": 60, "status.json": 20, "results.json": 20, "epochs.csv": 20},
        **{"multirun.yaml": 15, "overrides": 15, "data": 60},
    }.items(),
)
def test_hostile_input_gives_an_answer_or_one_clear_error(target, count, watched):
    outcomes = {fuzz.once(target, number, seed=20, ground=watched) for number in range(count)}
    assert {outcome for outcome in outcomes if not outcome.endswith("refused")} - {"not done"}, (
        "everything was refused: the inputs are too wild"
    )


@pytest.mark.long
def test_the_watch_sees_what_is_run(watched, monkeypatch):
    monkeypatch.setitem(fuzz.TARGETS, "it", lambda rng, ground: pickle.loads(pickle.dumps(Opens("canary"))))
    with pytest.raises(fuzz.Executed, match="pickle"):
        fuzz.once("it", 0, 0, watched)
    monkeypatch.setattr(fuzz, "SECONDS", 0.2)
    monkeypatch.setitem(fuzz.TARGETS, "it", lambda rng, ground: time.sleep(5))
    with pytest.raises(fuzz.Hang):
        fuzz.once("it", 0, 0, watched)


def test_a_clock_that_is_set_back_gives_no_negative_seconds(tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    with run.tracked({}):
        monkeypatch.setattr(time, "time", lambda: 0.0)
    assert 0 <= run.read_status()["seconds"] < 60


def test_a_file_name_that_is_not_utf8_is_read_back(tmp_path):
    run, word = RunFolder(tmp_path), os.fsdecode(b"dataset.path=mesur\xe9.csv")
    with run.tracked({"overrides": [word]}):
        pass
    status = run.read_status()
    assert (status["state"], status["overrides"]) == ("done", [word])
