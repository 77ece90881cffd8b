"""The table of `rnnclf bench` says what was measured, and fits its terminal."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from rnnclf.console.bench import FASTEST, benchmark_table, show_benchmark
from rnnclf.workflows.bench import (
    Benchmark,
    Machine,
    Measured,
)
from tests.workflows.small_bench import (
    SMALL,
    WORDS,
    _small_products,  # noqa: F401 - a fixture
)


def measured(cell: str, engine: str, training: float, inference: float, **more: object) -> Measured:
    values = {"auto": engine == "fused", "memory": 123_456_789, "flops": 5.12e10, "share": 0.5}
    return Measured(cell, engine, training=training, inference=inference, **{**values, **more})


ROWS = [
    measured("lstm", "fused", 4_000.0, 10_000.0),
    measured("lstm", "loop", 2_000.0, 5_000.0),
    measured("lstm", "torch", 5_000.0, 8_000.0),
    measured("s4d", "fft", 99.94, 1_234_567.0, flops=None, share=None),
]
MACHINE = Machine(
    "Some Processor 9000 With A Rather Long Name @ 2.00GHz", "cpu, 16 threads", "2.15.0", 1.0e12
)


def rendered(rows: list[Measured], width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(benchmark_table(Benchmark(SMALL, MACHINE, rows), width))
    return console.file.getvalue()


def line_of(text: str, engine: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if re.search(rf"\b{engine}\b.*\d", line))
    return line.split()


def test_the_table_shows_each_rate_beside_torchs():
    text = rendered(ROWS, 120)
    assert line_of(text, "fused") == [
        *("lstm", "fused", "*", "4,000", "0.80", "10,000", "1.25", "123.5", "51.2", "50", "%")
    ]
    assert line_of(text, "loop") == ["loop", "2,000", "0.40", "5,000", "0.62", "123.5", "51.2", "50", "%"]
    assert line_of(text, "fft") == ["s4d", "fft", "99.9", "–", "1,234,567", "–", "123.5", "–", "–"]
    assert "product rate: 1,000 GFLOP/s" in text
    assert "cpu, 16 threads; torch 2.15.0" in text
    assert "torch: torch's own layer" in text
    assert "own layer" not in rendered(ROWS[3:], 120)
    assert "6 steps of 2 features; 1 layer of 4 units" in text


def test_without_llvmlite_the_table_says_how_to_install_it(monkeypatch):
    line = "engine=machine needs llvmlite: pip install llvmlite"
    assert line not in rendered(ROWS, 80)
    monkeypatch.setattr("rnnclf.engine.choose.find_spec", lambda name: None)
    assert line in rendered(ROWS, 80)


@pytest.mark.parametrize("width", [80, 120])
def test_large_numbers_fit(width):
    large = measured("antisym", "fused", 123_456_789.0, 987_654_321.0, memory=99_999_999_999, flops=9.87e14)
    lines = rendered([*ROWS, large], width).splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    for figure in ("123,456,789", "987,654,321", "100,000.0", "987,000", "0.80", "1.25"):
        assert figure in "".join(lines)


def test_the_fastest_of_each_cell_stands_out():
    console = Console(width=80)
    table = benchmark_table(Benchmark(SMALL, MACHINE, ROWS), 80).renderables[0]
    marked = {segment.text.strip() for segment in console.render(table) if str(segment.style) == FASTEST}
    assert {text for text in marked if text} == {"5,000", "10,000"}  # and not the one engine of s4d


@pytest.mark.long
@pytest.mark.parametrize("width", [80, 120])
def test_a_benchmark_on_a_terminal_fits(cli, monkeypatch, width):
    for name, value in (("TTY_COMPATIBLE", "1"), ("TERM", "xterm-256color"), ("COLUMNS", str(width))):
        monkeypatch.setenv(name, value)
    done = cli("bench", "lstm", "mamba", *WORDS)
    assert done.exit_code == 0, done.output
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", done.stdout)
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", plain)]
    assert max(map(len, lines)) <= width
    assert any(re.match(r" mamba +\w+( \*)? +[\d,.]+", line) for line in lines)


def test_off_a_terminal_only_the_table_is_shown(capsys):
    show_benchmark(Benchmark(SMALL, MACHINE, ROWS))
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert shown.split()[:4] == ["training", "training", "inference", "inference"]
