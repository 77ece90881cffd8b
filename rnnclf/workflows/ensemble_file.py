"""The file of an ensemble: which checkpoints it averages, with which weights, and how well. Torch-free.

It names its members by paths inside its own folder, so that both can be moved together, and by their
checksums, so that no other model takes the place of one. Nothing in it is trusted.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from rnnclf import __version__, checkpoint
from rnnclf.errors import CheckpointError, OutputError
from rnnclf.files import made_folder, read_record, refuse_odd, write_json
from rnnclf.workflows.runs import SCORE, fits
from rnnclf.workflows.sweep_folder import ENSEMBLE_SUFFIX, ensemble_record, is_ensemble, is_sweep

if TYPE_CHECKING:
    from rnnclf.workflows.ensemble import Ensemble, Single

KIND = "ensemble"
FORMAT = 1
MOST_MEMBERS = 100
SCORES = {**SCORE, "loss": float}
MEMBER = {"checkpoint": str, "sha256": str, "weight": int, "words": str}
CONTENT: dict[str, Any] = {
    **{"fingerprint": str, "members": [MEMBER]},
    **{"ensemble": {"validation": SCORES, "test": SCORES}},
}
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class MemberFile:
    """A checkpoint that takes part in an ensemble, as the file names it."""

    checkpoint: Path
    sha256: str
    weight: int
    """How often it counts."""
    words: str
    """What tells it from the others, as words."""


@dataclass(frozen=True)
class EnsembleFile:
    """What is in the file of an ensemble, all of it checked; whether its members are there is not."""

    path: Path
    fingerprint: str
    """Of the data on which it was chosen."""
    members: tuple[MemberFile, ...]
    scores: dict[str, dict[str, Any]]
    """Those of the ensemble by split, as in results.json."""

    @property
    def weights(self) -> tuple[int, ...]:
        return tuple(member.weight for member in self.members)

    @property
    def title(self) -> str:
        """What to call it in tables."""
        return f"ensemble of {len(self.members)}"

    def doubts(self, split: str) -> tuple[str, ...]:
        """Reasons to doubt its scores on a split of its own data, as sentences for the user."""
        if split != "validation":
            return ()
        return ("The ensemble was chosen on the validation split: its scores there are too optimistic.",)

    def members_as_plain(self) -> list[dict[str, Any]]:
        """For JSON."""
        return [{**asdict(member), "checkpoint": str(member.checkpoint)} for member in self.members]


def read(path: Path) -> EnsembleFile:
    """Reads and checks the file of an ensemble. Raises CheckpointError."""
    try:
        content = json.loads(read_record(path))
        refuse_odd(content)
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not an ensemble of rnnclf, or damaged.") from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise CheckpointError(f"{path} is not an ensemble of rnnclf.")
    if type(content.get("format")) is not int or content["format"] != FORMAT:
        raise CheckpointError(
            f"{path} has ensemble format {content.get('format')!r}; this version of rnnclf reads {FORMAT}."
        )
    if not fits(content, CONTENT) or not 1 <= len(content["members"]) <= MOST_MEMBERS:
        raise CheckpointError(f"{path} is damaged: it does not list its members and scores.")
    members = tuple(_member(path, plain) for plain in content["members"])
    if len({member.checkpoint for member in members}) < len(members):
        raise CheckpointError(f"{path} is damaged: it names a member twice.")
    return EnsembleFile(path, content["fingerprint"], members, content["ensemble"])


def _member(path: Path, plain: dict[str, Any]) -> MemberFile:
    name, weight = plain["checkpoint"], plain["weight"]
    if not _is_inside(name):
        raise CheckpointError(
            f"{path} names {name!r}, which is not inside its folder: the members of an ensemble lie beside or"
            " below its file."
        )
    if not _SHA256.fullmatch(plain["sha256"]) or not 1 <= weight <= MOST_MEMBERS:
        raise CheckpointError(f"{path} is damaged: its member {name!r} has no valid checksum and weight.")
    return MemberFile(path.parent / name, plain["sha256"], weight, plain["words"])


def _is_inside(name: str) -> bool:
    """Whether a path, written with slashes, leads from a folder to a file below it on every system."""
    here, there = PurePosixPath(name), PureWindowsPath(name)
    outside = here.is_absolute() or there.is_absolute() or there.drive or there.root
    return not outside and ".." not in there.parts and bool(here.parts) and "\0" not in name


def verified(found: EnsembleFile, member: MemberFile) -> Path:
    """The checkpoint of a member. Raises CheckpointError unless the ensemble was made of it."""
    file = member.checkpoint
    if not os.path.lexists(file):
        raise CheckpointError(
            f"{file} is missing: {found.path} averages it, so move or copy both together with its folder."
        )
    there = checkpoint.describe(file)
    if not there.intact:
        raise CheckpointError(checkpoint.mismatch(file))
    if there.sha256 != member.sha256:
        raise CheckpointError(
            f"{file} is not the checkpoint that {found.path} was made of, because its checksum differs:"
            " make the ensemble anew with rnnclf ensemble."
        )
    return file


# Writing it


def save(found: Ensemble, output: Path | None = None) -> Path:
    """Writes the file of an ensemble, and returns its path.

    output: the file, in a folder above all members. If it is left out, it lies in the folder of the sweep,
        where it replaces an earlier one, or in the folder of the runs, where it gets a name of its own.

    Raises OutputError.
    """
    path = _usual_path(found) if output is None else output
    if not is_ensemble(path):
        raise OutputError(f"The file of an ensemble ends in {ENSEMBLE_SUFFIX}: {path} does not.")
    folder = Path(os.path.abspath(path.parent))
    for member in found.members:
        if not Path(os.path.abspath(member.checkpoint)).is_relative_to(folder):
            raise OutputError(
                f"{path} would not lie above its member {member.run}, so that they could not be moved"
                f" together: name a file in {found.home}."
            )
    if output is not None and os.path.lexists(path) and _members_in(path) is None:
        raise OutputError(f"{path} exists already and is not an ensemble: choose another name.")
    made_folder(path.parent)
    write_json(path, to_plain(found, folder))
    return path


def _usual_path(found: Ensemble) -> Path:
    """In the folder of a sweep always the same; elsewhere the first name that is free or was written for the
    same members."""
    first = ensemble_record(found.home)
    if is_sweep(found.home):
        return first
    chosen = {(member.sha256, member.weight) for member in found.members}
    path, number = first, 1
    while os.path.lexists(path) and _members_in(path) != chosen:
        number += 1
        path = first.with_stem(f"{first.stem}-{number}")
    return path


def _members_in(path: Path) -> set[tuple[str, int]] | None:
    """The checksums and weights in the file of an ensemble; None if it is none."""
    try:
        return {(member.sha256, member.weight) for member in read(path).members}
    except CheckpointError:
        return None


def to_plain(found: Ensemble, folder: Path) -> dict[str, Any]:
    """The content of the file of an ensemble in this folder, which is above all members."""

    def run(single: Single) -> dict[str, Any]:
        return {"run": _below(single.run, folder), "words": single.words, **single.scores}

    members = [
        {
            "checkpoint": _below(member.checkpoint, folder),
            "sha256": member.sha256,
            "weight": member.weight,
            **run(member),
        }
        for member in found.members
    ]
    keys = "accuracy", "loss"
    means = {split: {key: found.mean_of_members(split, key) for key in keys} for split in found.scores}
    return {
        **{"kind": KIND, "format": FORMAT, "rnnclf": __version__},
        **{"data": found.data, "fingerprint": found.fingerprint, "members": members},
        "chosen": {
            **{"split": "validation", "metric": "log_loss", "sequences": found.sequences},
            **{"candidates": found.candidates, "most": found.most, "validation_is_optimistic": True},
        },
        "ensemble": found.scores,
        "best_single": run(found.single),
        "mean_of_members": means,
        "against_best_single": None if found.against is None else asdict(found.against),
        "notes": list(found.notes),
    }


def _below(path: Path, folder: Path) -> str:
    """A path as one writes it in that folder, with slashes."""
    return Path(os.path.relpath(path, folder)).as_posix()
