"""`rnnclf export --demo`: the folder that it writes, and the page in a real browser."""

from __future__ import annotations

import base64
import csv
import functools
import http.server
import io
import json
import re
import shutil
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from rnnclf.cli import app
from rnnclf.errors import ConfigError, OutputError
from rnnclf.export import web_runtime
from rnnclf.export.web_runtime import FILES, add_runtime
from rnnclf.workflows import demo
from tests.cli_runs import SMALL
from tests.conftest import logging_restored
from tests.export.exporting import needs_onnx

needs_onnx()
TEMPLATE = sorted(demo.TEMPLATE.iterdir())
HOSTILE = ("<img src=x onerror=\"document.title='owned'\">", "=1+1", "up\u202edown")


def invoked(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


def succeeded(*words: object) -> str:
    with logging_restored():
        done = invoked(*words)
    assert done.exit_code == 0, done.output
    return done.stdout


def silent(sentence: str) -> None:
    """Tells nobody."""


# The files of the page


def test_no_text_can_become_html():
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setHTML|srcdoc"
    assert not [path.name for path in TEMPLATE if re.search(ways, path.read_text())]
    page = (demo.TEMPLATE / "index.html").read_text()
    assert "default-src 'none'" in page
    assert "unsafe-inline" not in page


def test_nothing_comes_from_elsewhere():
    found = {url for path in TEMPLATE for url in re.findall(r"https?://[\w.:-]+", path.read_text())}
    assert found == {"http://localhost:8000", "http://www.w3.org"}  # what to open, and the name of SVG


# The runtime


def package(folder: Path, names: tuple[str, ...] = tuple(FILES.values())) -> Path:
    with tarfile.open(folder / "onnxruntime-web.tgz", "w:gz") as archive:
        for name in names:
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = 9
            archive.addfile(entry, io.BytesIO(b"\0asm" + b"12345"))
    return folder


class Npm:
    """In place of npm; counts how often it is called."""

    def __init__(self, monkeypatch, error: str = "", names: tuple[str, ...] = tuple(FILES.values())) -> None:
        self.calls = 0
        monkeypatch.setattr(web_runtime.shutil, "which", lambda name: f"/bin/{name}")

        def run(words, cwd, **options):
            self.calls += 1
            if not error:
                package(cwd, names)
            return SimpleNamespace(returncode=bool(error), stderr=error)

        monkeypatch.setattr(web_runtime.subprocess, "run", run)


def test_the_runtime_comes_from_npm_once(monkeypatch, tmp_path):
    npm, told = Npm(monkeypatch), []
    add_runtime(tmp_path, told.append)
    add_runtime(tmp_path, told.append)
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)
    assert npm.calls == len(told) == 1
    (tmp_path / "ort.wasm").write_bytes(b"half")
    add_runtime(tmp_path, told.append)
    assert npm.calls == 2
    assert (tmp_path / "ort.wasm").read_bytes() == b"\0asm12345"


def test_without_npm_it_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(web_runtime.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"from npm, which is not installed\. Install Node\.js, or put ort"):
        add_runtime(tmp_path, silent)


def test_what_npm_says_is_passed_on(monkeypatch, tmp_path):
    text = "npm error code ENOTFOUND\nnpm error network request failed.\nA complete log is in /x\n"
    Npm(monkeypatch, error=text)
    with pytest.raises(
        ConfigError, match=r"npm could not fetch onnxruntime-web [\d.]+: network request failed\.$"
    ):
        add_runtime(tmp_path, silent)
    Npm(monkeypatch, names=("other.js",))
    with pytest.raises(ConfigError, match="does not hold the runtime"):
        add_runtime(tmp_path, silent)
    assert not list(tmp_path.iterdir())


# What is refused


def test_a_page_of_somebody_else_is_not_overwritten(tmp_path):
    (tmp_path / "index.html").write_text("<p>mine")
    with pytest.raises(OutputError, match=r"has an index\.html of its own"):
        demo.export_demo(tmp_path / "run", [], tmp_path, silent)
    with pytest.raises(OutputError, match="is a file"):
        demo.export_demo(tmp_path / "run", [], tmp_path / "index.html", silent)
    with pytest.raises(ConfigError, match="leave out step=true"):
        demo.export_demo(tmp_path / "run", ["step=true"], tmp_path / "page", silent)
    done = invoked("export", tmp_path / "run", "--demo", tmp_path / "page", "-o", "other.onnx")
    assert done.exit_code == 2
    assert "leave out --output" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


# A folder


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, Path, dict]:
    """A run on digits, its page with an empty runtime, and what the command says as JSON. (operators=own:
    nothing has to be traced, which takes longer.)"""
    folder = tmp_path_factory.mktemp("demo")
    succeeded("train", "cell=gru", *SMALL, f"hydra.run.dir={folder / 'run'}")
    page = folder / "page"
    page.mkdir()
    for name in FILES:
        (page / name).write_bytes(b"\0asm")
    return (
        folder / "run",
        page,
        json.loads(succeeded("export", folder / "run", "operators=own", "--demo", page, "--json")),
    )


@pytest.mark.long
def test_the_folder_holds_the_page_and_what_it_knows_of_the_model(written):
    _, page, said = written
    assert {path.name for path in page.iterdir()} == {
        *(path.name for path in TEMPLATE),
        *FILES,
        "model.onnx",
        "model.json",
    }
    assert said["demo"]["takes"] == "drawing"
    facts = json.loads((page / "model.json").read_text())
    assert facts["title"] == "gru on digits"
    assert facts["classes"] == [str(digit) for digit in range(10)]
    assert facts["inputs"] == [{"name": "x", "type": "float32"}]
    assert np.array_equal(facts["picture"]["places"], np.arange(64).reshape(8, 8))
    assert (facts["picture"]["unit"], facts["picture"]["pen"]["box"]) == (16, [5, 8])


# In a browser


def chromium() -> str:
    """Where a browser is; skips the test if there is none, or nothing to drive it with."""
    pytest.importorskip("playwright", reason="needs playwright")
    if shutil.which("npm") is None:
        pytest.skip("needs npm")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    return found or pytest.skip("needs Chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        """Nothing."""


@pytest.fixture
def visit(browser):
    """Opens a folder as `python -m http.server` serves it. At the end, nothing may have gone wrong or come
    from elsewhere."""
    servers, wrong = [], []

    def opened(folder: Path, **options):
        server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))
        )
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        address = f"http://127.0.0.1:{server.server_port}/"
        page = browser.new_page(**options)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text))
        page.on(
            "request", lambda one: one.url.startswith((address, "blob:", "data:")) or wrong.append(one.url)
        )
        page.goto(address)
        page.wait_for_selector("main:not([hidden])")
        return page

    yield opened
    for server in servers:
        server.shutdown()
        server.server_close()
    assert not wrong


def shares(page) -> dict[str, float]:
    """The probabilities on the page, by class."""
    page.wait_for_selector("#steps:not([hidden])")  # the last thing to come
    return page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('#bars li')]"
        ".map(one => [one.dataset.place, Number(one.dataset.probability)]))"
    )


def draw(page, *strokes: tuple[tuple[float, float], ...]) -> None:
    """Draws with the mouse; points are fractions of the pad."""
    box = page.locator("#pad").bounding_box()
    for stroke in strokes:
        for number, (x, y) in enumerate(stroke):
            page.mouse.move(
                box["x"] + x * box["width"], box["y"] + y * box["height"], steps=1 + 4 * (number > 0)
            )
            if number == 0:
                page.mouse.down()
        page.mouse.up()


def predicted(run: Path, data: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(succeeded("predict", run, data, "threads=1"))))


@pytest.fixture(scope="module")
def digits(written, browser) -> tuple[Path, Path]:
    """The run and its page, with the real runtime."""
    run, page, _ = written
    for name in FILES:
        (page / name).unlink()
    succeeded("export", run, "--demo", page)
    return run, page


@pytest.mark.slow
def test_the_page_answers_as_predict_for_what_is_drawn(digits, visit, tmp_path):
    run, folder = digits
    page = visit(folder)
    draw(page, ((0.3, 0.2), (0.7, 0.2), (0.45, 0.8)), ((0.4, 0.5), (0.65, 0.5)))
    found = shares(page)
    # the picture that the model has read, as a file
    page.locator("#preview").evaluate("canvas => { window.seen = canvas.toDataURL('image/png') }")
    (tmp_path / "seen.png").write_bytes(base64.b64decode(page.evaluate("seen").partition(",")[2]))
    [wanted] = predicted(run, tmp_path / "seen.png")
    assert set(found) == {str(digit) for digit in range(10)}
    for digit, share in found.items():
        assert share == pytest.approx(float(wanted[f"p_{digit}"]), abs=1e-4)

    page.click("#clear")
    assert not page.locator("#bars li").count()
    page.set_input_files("#file", tmp_path / "seen.png")
    assert shares(page) == pytest.approx(found, abs=1e-6)


@pytest.mark.slow
def test_the_page_says_that_it_needs_a_server(digits, browser):
    page = browser.new_page()
    page.goto((digits[1] / "index.html").as_uri())
    page.wait_for_selector("#not-served", state="visible")
    assert "python -m http.server" in page.inner_text("#not-served")


def table(path: Path, sequences: int, seed: int, labelled: bool = True) -> Path:
    """Sequences with gaps and dates, rows shuffled, columns in another order if they have no labels."""
    draw = np.random.default_rng(seed)
    rows = []
    for number in range(sequences):
        label = number % len(HOSTILE)
        for second in np.cumsum(draw.integers(1, 9, draw.integers(6, 15))):
            u = "" if draw.random() < 0.2 else f"{label + draw.normal():.4f}"
            v = draw.choice(["NA", "?"]) if draw.random() < 0.1 else f"{draw.normal(100, 3):.3f}"
            time = f"2026-01-31 23:{59 - second // 60:02}:{second % 60:02}"
            rows.append({"series": f"s/{number}", "time": time, "u": u, "v": v, "kind": HOSTILE[label]})
    draw.shuffle(rows)
    columns = ["series", "time", "u", "v", "kind"] if labelled else ["v", "time", "u", "series"]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.slow
def test_the_page_answers_as_predict_for_a_table(browser, visit, tmp_path):
    data, new = table(tmp_path / "old.csv", 60, 0), table(tmp_path / "new.csv", 7, 1, labelled=False)
    words = ("cell=gru", "hidden=8", "epochs=2", "threads=1", "recipe=plain", "dataset.missing=mask")
    succeeded("train", data, *words, f"hydra.run.dir={tmp_path / 'run'}")
    succeeded("export", tmp_path / "run", "--demo", tmp_path / "page")
    page = visit(tmp_path / "page", accept_downloads=True, viewport={"width": 390, "height": 800})
    page.set_input_files("#file", new)
    shares(page)
    with page.expect_download() as download:
        page.click("#download")
    with open(download.value.path(), newline="") as file:
        found = list(csv.DictReader(file))
    wanted = predicted(tmp_path / "run", new)
    assert [row["id"] for row in found] == [row["id"] for row in wanted]
    for one, other in zip(found, wanted, strict=True):
        for name in HOSTILE:
            assert float(one[f"p_{name}"]) == pytest.approx(float(other[f"p_{name}"]), abs=1e-4)
    # hostile names are text, and nothing is wider than the screen
    assert page.title() == "gru on table"
    assert not page.locator("main img").count()
    assert page.evaluate("document.documentElement.scrollWidth") == 390

    (tmp_path / "bad.csv").write_text("series,time,u\n1,2,3\n")
    page.set_input_files("#file", tmp_path / "bad.csv")
    page.wait_for_selector("#trouble:not([hidden])")
    assert page.inner_text("#trouble").startswith("bad.csv has no column 'v', which the model reads.")
