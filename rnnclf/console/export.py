"""What `rnnclf export` has written: its size, its check, its signature, a program that runs it."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from rnnclf.console.inspect import signature
from rnnclf.console.screen import print_plain, screen, short
from rnnclf.console.tables import facts_grid
from rnnclf.escaping import one_line
from rnnclf.export.reading import ExportedFile
from rnnclf.metrics import percent
from rnnclf.system.memory import in_bytes
from rnnclf.workflows.demo import Page
from rnnclf.workflows.export import Exported

WIDTH = 80  # columns of the program
TAKES = {
    "drawing": "you draw, and see what the model answers",
    "pictures": "it answers for pictures that you drop on it",
    "tables": "it answers for CSV files that you drop on it",
}
NUMPY = {"float32": "np.float32", "float64": "np.float64"}


def show_exported(exported: Exported) -> None:
    """The file, and a program that runs it."""
    _show_file(exported)
    screen().print()
    for line in program(exported.file, exported.steps):
        print_plain(line)


def show_page(page: Page) -> None:
    """The file, what the page around it takes, and how to look at it."""
    _show_file(page.exported)
    console = screen()
    console.print(Text(f"{short(page.folder)} is a web page: {TAKES[page.takes]}. Serve it:"))
    console.print()
    print_plain(f"python -m http.server --bind localhost --directory {short(page.folder)}")
    print_plain("")
    console.print(Text("Then open http://localhost:8000. Any web server will do."))


def _show_file(exported: Exported) -> None:
    console = screen()
    grid = facts_grid()
    for name, text in _lines(exported):
        grid.add_row(Text(name, style="bold"), Text(one_line(text)))
    console.print(Text(short(exported.file.path), style="bold cyan"))
    console.print(grid)
    for note in exported.notes:
        console.print(Text(note, style="yellow"))


def _lines(exported: Exported) -> Iterator[tuple[str, str]]:
    file, found = exported.file, exported.comparison
    size = in_bytes(file.size)
    if exported.options.int8:
        plain = in_bytes(exported.float_size)
        size += f", {percent(file.size / exported.float_size)} of the {plain} without int8"
    yield "size", size
    kind = "random" if exported.why_random else "validation"
    yield (
        "check",
        f"on {found.sequences:,} {kind} sequences, logits differ from those of rnnclf by at most"
        f" {found.difference:.1e} (the largest is {found.largest:.3g});"
        f" {_same(found.same, found.sequences)}",
    )
    if exported.why_random:
        yield "why random", exported.why_random
    if found.accuracies is not None:
        ours, theirs = map(percent, found.accuracies)
        yield "accuracy", f"{theirs} by the file, {ours} by rnnclf, on these sequences"
    yield from signature(file)


def _same(same: int, sequences: int) -> str:
    if same == sequences:
        return "all get the same class"
    return f"{sequences - same:,} get another class"


def program(file: ExportedFile, steps: int) -> list[str]:
    """Lines of Python that run the file, none of more than 80 columns."""
    path = short(file.path).strip("'")
    opened = f'model = onnxruntime.InferenceSession("{path}")'
    if len(opened) > WIDTH or '"' in path or "\\" in path:
        opened = f'model = onnxruntime.InferenceSession("{"step" if _is_step(file) else "model"}.onnx")'
    entries = [f'"{name}": {example}' for name, example in _examples(file, steps)]
    feed = f"feed = {{{', '.join(entries)}}}"
    if len(feed) > WIDTH:
        feed = f"feed = {{{(chr(10) + ' ' * 8 + '').join(f'{entry}, ' for entry in entries).rstrip(', ')}}}"
    return [
        "import json, numpy as np, onnxruntime",
        opened,
        'classes = json.loads(model.get_modelmeta().custom_metadata_map["classes"])',
        *(line.rstrip() for line in feed.splitlines()),
        "print(dict(zip(classes, model.run(None, feed)[0][0])))",
    ]


def _is_step(file: ExportedFile) -> bool:
    return bool(file.facts["kind"] == "step")


def _examples(file: ExportedFile, steps: int) -> Iterator[tuple[str, str]]:
    """For each input, an expression that makes one sequence or one step."""
    sizes = {"batch": 1, "time": steps}
    for port in file.inputs:
        shape = ", ".join(str(sizes.get(str(size), size)) for size in port.shape)
        if port.name == "lengths":
            yield port.name, f"np.array([{steps}])"
        else:
            made = "ones" if port.name == "elapsed" else "zeros"
            comma = "," if len(port.shape) == 1 else ""
            yield port.name, f"np.{made}(({shape}{comma}), {NUMPY[port.type]})"
