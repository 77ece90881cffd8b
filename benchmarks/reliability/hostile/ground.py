"""The valid files from which hostile ones are made, and the screen that they must not reach."""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECRET = "jailbird-4711"  # what the environment variable FUZZ_SECRET holds
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


class Executed(BaseException):
    """An input had something run."""


@dataclass
class Ground:
    """A sweep folder with one run in it, and the valid contents from which inputs are made."""

    folder: Path
    checkpoints: list[bytes] = field(default_factory=list)
    records: dict[str, bytes] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    """Configuration and data of a run."""

    @property
    def sweep(self) -> Path:
        return self.folder / "sweep"

    @property
    def run(self) -> Path:
        return self.sweep / "0"


def prepare(folder: Path) -> Ground:
    """Makes valid files by the code that makes those of users: small models, stopped and finished."""
    from omegaconf import OmegaConf

    from rnnclf.hydra_app import load_config
    from rnnclf.workflows.runs import RunFolder
    from rnnclf.workflows.train import Data, Watcher, train

    ground = Ground(folder)
    small = ["dataset=digits", "epochs=1", "hidden=4", "threads=1", "dataset.test=1500"]
    kinds = (
        ["cell=gru"],
        ["cell=lmu", "layers=2"],
        ["cell=s4d", "bidirectional=true", "checkpoint.every=1 steps"],
    )
    for number, words in enumerate(kinds):
        run = RunFolder(folder / "made" / str(number))
        run.path.mkdir(parents=True)
        config = load_config([*small, *words])
        train(config, run, overrides=[*small, *words])
        there = [file for file in (run.best, run.last, run.previous) if file.exists()]
        ground.checkpoints += [file.read_bytes() for file in there]
        if number == 0:
            ground.data |= {"config": config, "splits": Data.of(config, Watcher())}
            ground.run.mkdir(parents=True)
            for file in (run.status, run.results, run.epochs):
                ground.records[file.name] = file.read_bytes()
                (ground.run / file.name).write_bytes(file.read_bytes())
            (ground.run / run.best.name).write_bytes(run.best.read_bytes())
    OmegaConf.save(composed_sweep([*small, "seed=1,2"]), ground.sweep / "multirun.yaml")
    ground.records["multirun.yaml"] = (ground.sweep / "multirun.yaml").read_bytes()
    return ground


def composed_sweep(words: list[str]) -> Any:
    """What Hydra writes into multirun.yaml for these words."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    from rnnclf.hydra_app.setup import conf_dir

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        return loader.load_configuration("config", words, run_mode=RunMode.MULTIRUN)


def said(message: str, file: Path | None) -> None:
    """An error names the file, and goes to the screen without harm."""
    from rnnclf.console.screen import print_error

    assert file is None or str(file) in message, message
    with contextlib.redirect_stderr(io.StringIO()) as screen:
        print_error(message)
    harmless(screen.getvalue())


def shown(found: Any) -> None:
    from rnnclf.console.inspect import show_inspection
    from rnnclf.console.screen import print_json

    with contextlib.redirect_stdout(io.StringIO()) as screen:
        show_inspection(found)
        print_json(found.to_dict())
    harmless(screen.getvalue())
    screen.getvalue().encode()


def harmless(text: str) -> None:
    if found := CONTROL.search(text):
        raise AssertionError(f"{found[0]!r} reached the screen")
    if SECRET in text:
        raise Executed("the environment was read")
