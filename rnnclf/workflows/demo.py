"""Writes a folder with a web page that runs a trained model in the browser. Prints nothing.

The files of the page are in `rnnclf/export/demo`; they know the model from `model.json`, which is made here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnnclf import __version__, checkpoint
from rnnclf import export as export_package
from rnnclf.data import Learned, Source
from rnnclf.data.images.base import Images
from rnnclf.data.own import OwnData
from rnnclf.data.recordings import numbered
from rnnclf.errors import ConfigError, OutputError
from rnnclf.escaping import json_text
from rnnclf.export.reading import ExportedFile
from rnnclf.export.web_runtime import add_runtime
from rnnclf.files import write_atomically
from rnnclf.metrics import percent
from rnnclf.workflows.export import Exported, export, settings
from rnnclf.workflows.exported import load_file
from rnnclf.workflows.loading import config_of, one_checkpoint

TEMPLATE = Path(export_package.__file__).parent / "demo"
MODEL, FACTS, INDEX = "model.onnx", "model.json", "index.html"
MARK = b'name="generator" content="rnnclf export --demo"'
"""What tells our index.html from others, which are not overwritten."""
SHOWN = 8  # columns in a sentence
ASIDE = (
    "missing_values",
    "decimal",
    "delimiter",
    "time_format",
)  # options of a table that say how to read it

PENS: dict[str, dict[str, Any]] = {
    # LeCun et al. 1998: scaled to fit 20 × 20 pixels, then the centre of mass is moved to the middle
    "mnist": {"box": (20, 20), "stretch": 1, "centre": "mass", "width": 2.4},
    "qmnist": {"box": (20, 20), "stretch": 1, "centre": "mass", "width": 2.4},
    # Cohen et al. 2017: scaled to fit the picture but for 2 pixels on each side
    "emnist": {"box": (24, 24), "stretch": 1, "centre": "box", "width": 3.0},
    "kmnist": {"box": (26, 26), "stretch": 1, "centre": "box", "width": 2.6},
    # Garris et al. 1994: 20 × 32 points of a bitmap of 32 × 32, of which 4 × 4 make a pixel
    "digits": {"box": (5, 8), "stretch": 2, "centre": "box", "width": 1.35},
}
"""How handwriting is scaled, by data set. box: width and height in pixels, ink included. stretch: how many
times more in height than in width. centre: what comes to the middle of the picture. width: of the pen, which
gives as much ink as the data have."""


@dataclass(frozen=True)
class Page:
    """A folder with a web page, and the model in it."""

    folder: Path
    exported: Exported
    takes: str
    """drawing, pictures or tables."""

    def to_dict(self) -> dict[str, Any]:
        size = sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())
        page = {"folder": str(self.folder), "takes": self.takes, "bytes": size}
        return {**self.exported.to_dict(), "demo": page}


def export_demo(path: Path, words: Sequence[str], folder: Path, tell: Callable[[str], None]) -> Page:
    """Writes the classifier of a run folder or checkpoint file with a page around it.

    `words` as for `export`. tell: called with a sentence before something that takes long. Raises an
    RnnclfError for what the user can change, JobFailed as `export` does.
    """
    if settings(words)[0].step:
        raise ConfigError("--demo needs the file for whole sequences: leave out step=true.")
    _refuse_folder(folder)
    config = config_of(checkpoint.load(one_checkpoint(path)))
    _refuse_durations(config.dataset)
    if config.axes != "steps" and config.dataset.layout() is None:
        raise ConfigError(
            f"--demo of a model with axes={config.axes} takes pictures alone, and these data are series."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot create the folder {folder}: {error.strerror}.") from error
    add_runtime(folder, tell)
    exported = export(path, words, folder / MODEL)
    loaded = load_file(folder / MODEL)
    facts = facts_for(exported.file, loaded.config.dataset, loaded.learned)
    write_atomically(folder / FACTS, json_text(facts).encode())
    for file in sorted(TEMPLATE.iterdir()):
        write_atomically(folder / file.name, file.read_bytes())
    takes = "tables" if facts["table"] else "drawing" if facts["picture"]["pen"] else "pictures"
    return Page(folder, exported, takes)


def _refuse_folder(folder: Path) -> None:
    """Raises OutputError for a folder that cannot be one, or that has a page of somebody else."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file: --demo takes the name of a folder.")
    index = folder / INDEX
    try:
        others = index.exists() and MARK not in index.read_bytes()
    except OSError as error:
        raise OutputError(f"Cannot read {index}: {error.strerror}.") from error
    if others:
        raise OutputError(
            f"{folder} has an {INDEX} of its own, which is not overwritten: name another folder."
        )


def _refuse_durations(source: Source) -> None:
    sizes = {key: getattr(source, key, None) for key in ("window", "step")}
    for key, size in sizes.items():
        if isinstance(size, str):
            raise ConfigError(
                f"--demo cuts windows by numbers of steps; the model was trained with dataset.{key}={size}."
            )


def facts_for(file: ExportedFile, source: Source, learned: Learned) -> dict[str, Any]:
    """What the page has to know of the model, as plain JSON values."""
    preparation, training = learned.preparation, learned.training
    is_picture = isinstance(source, Images)
    table = None if is_picture else _table(source, learned)
    return {
        "rnnclf": __version__,
        "title": f"{file.facts['cell']} on {source.name}",
        "facts": _in_words(file),
        "expected": _expected(table, preparation.channels) if table else "",
        "classes": list(learned.classes),
        "channels": list(preparation.channels),
        "inputs": [{"name": port.name, "type": port.type} for port in file.inputs],
        "missing": preparation.missing,
        "timed": preparation.timed is not False,
        "lengths": training.lengths and list(training.lengths),
        "picture": _picture(source) if isinstance(source, Images) else None,
        "table": table,
    }


def _in_words(file: ExportedFile) -> str:
    hidden, test = file.facts.get("hidden"), file.facts.get("test")
    said = [f"{hidden} hidden units"] if hidden else []
    if isinstance(test, dict) and isinstance(test.get("accuracy"), float):
        said.append(f"{percent(test['accuracy'])} of {test.get('total', 0):,} test sequences right")
    return ", ".join(said)


def _picture(source: Images) -> dict[str, Any]:
    layout = source.layout()
    return {
        "height": layout.height,
        "width": layout.width,
        "colours": layout.colours,
        "unit": source.unit,
        "places": layout.places_TI.tolist(),
        "pen": PENS.get(source.name) if layout.colours == 1 else None,
    }


def _table(source: Source, learned: Learned) -> dict[str, Any]:
    """How to read a table, by the columns of the training data; form is None if they had none."""
    columns, channels = learned.training.columns, learned.preparation.channels
    window = getattr(source, "window", None) if isinstance(source, OwnData) else None
    step = getattr(source, "step", None) or window
    return {
        "form": columns.get("form"),
        "id": columns.get("id", []),
        "time": columns.get("time"),
        "label": columns.get("label"),
        "aside": columns.get("aside", []),
        "steps": columns.get("steps", []),
        "nameless": channels in (("value",), numbered(len(channels))),
        "window": {"size": window, "step": step} if window else None,
        **{key: getattr(source, key, None) for key in ASIDE},
    }


def _expected(table: dict[str, Any], channels: tuple[str, ...]) -> str:
    """The table that the page expects, in a sentence."""
    if table["form"] == "wide":
        of = "" if len(channels) == 1 else f", each with {_listed(channels)}"
        names = f": {_listed(table['steps'])}" if table["steps"] else ""
        return f"A row for each sequence, a column for each step{of}{names}. Drop it here, or choose it."
    others = list(filter(None, (*table["id"], table["time"])))
    values = (
        f"{len(channels)} columns of values"
        if table["nameless"]
        else f"the columns {_listed((*others, *channels))}"
    )
    return f"A row for each step, and {values}. Drop it here, or choose it."


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
