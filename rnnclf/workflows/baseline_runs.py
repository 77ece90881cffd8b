"""The run folders of baselines: what is in them, and finding those that a run can be compared with.

Does not import torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnclf.baselines import BASELINES
from rnnclf.workflows.runs import OUTPUTS, RunFolder, read_json

if TYPE_CHECKING:
    from rnnclf.data import Splits

MOST_FOLDERS = 200  # that are looked at, the newest first


def division(splits: Splits, final_fit: bool) -> str:
    """A hash of which sequences a classifier learns from, and on which ones it is tested.

    final_fit: whether it learns from the validation sequences, too.
    """
    import numpy as np

    parts = [splits.train, splits.validation] if final_fit else [splits.train]
    known = [np.arange(len(part)) if part.number_N is None else part.number_N.numpy() for part in parts]
    test = splits.test.number_N
    digest = hashlib.sha256(np.sort(np.concatenate(known)).astype(np.int64).tobytes())
    digest.update(b"" if test is None else np.sort(test.numpy()).astype(np.int64).tobytes())
    return digest.hexdigest()[:16]


def baselines_beside(run: RunFolder) -> list[dict[str, Any]]:
    """The results of the newest run of each baseline on the data of this run, divided in the same way."""
    own = _data_of(run)
    if None in own:
        return []
    found: dict[str, dict[str, Any]] = {}
    for folder in _folders(run):
        results = folder.read_results() if folder.is_finished() else {}
        name = results.get("baseline")
        if isinstance(name, str) and name in BASELINES and name not in found and _data_of(folder) == own:
            found[name] = results
    return [found[name] for name in BASELINES if name in found]


def _folders(run: RunFolder) -> Iterator[RunFolder]:
    """The folders of baselines beside a run and in outputs/, the newest first."""
    above = {run.path.absolute().parent.parent, Path(OUTPUTS).absolute()}
    paths = {path for base in above for name in BASELINES for path in base.glob(f"*/*-{name}*")}
    newest = sorted(paths, key=lambda path: (path.parent.name, path.name), reverse=True)
    return map(RunFolder, newest[:MOST_FOLDERS])


def _data_of(run: RunFolder) -> tuple[Any, Any]:
    """What identifies the data of a run and their division; None where it is not recorded."""
    provenance = read_json(run.provenance)
    return provenance.get("data_fingerprint"), provenance.get("division")
