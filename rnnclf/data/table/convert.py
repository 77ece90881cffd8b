"""Converts tables to sequences: rows are read block by block and sorted on disk. Torch-free.

Shapes: R rows of a block, N sequences, S steps, T steps of a row, C channels.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rnnclf.data.recordings import Array, Progress
from rnnclf.data.survey import chunks
from rnnclf.data.table.blocks import TableFile
from rnnclf.data.table.channels import Channels
from rnnclf.data.table.register import SequenceRegister
from rnnclf.data.table.roles import Roles
from rnnclf.data.table.store import HEADER, GrowingArray, write_metadata
from rnnclf.data.table.times import in_seconds, times
from rnnclf.errors import DataError

ROWS = 2**20  # rows to sort at a time


def write_sequences(
    tables: Sequence[TableFile], roles: Roles, notes: Sequence[str], folder: Path, progress: Progress
) -> list[str | None]:
    """Writes the sequences of the tables into `folder`; a second table is the test split. Returns their
    labels if they are read without, see `SequenceRegister.truth`.

    Values are float32, unless that would lose digits that tell them apart: then they are read again.
    """
    import numpy as np

    write = _write_long if roles.form == "long" else _write_wide
    for dtype in ("<f4", "<f8"):
        register, channels = SequenceRegister(roles), Channels(roles, tables[0].name, dtype)
        lengths_N, found = write(tables, register, channels, folder, progress)
        if not channels.needs_float64():
            break
    np.save(folder / "lengths_N.npy", lengths_N)
    categories = channels.finish(folder / "values_SC.npy")
    classes = register.save(folder)
    write_metadata(
        folder,
        form=roles.form,
        classes=classes,
        channels=roles.channels,
        columns=roles.to_plain(),
        categories=categories,
        files=register.files_with_steps(lengths_N),
        firsts=register.firsts,
        notes=[*notes, *found],
    )
    return register.truth()


def _write_wide(
    tables: Sequence[TableFile],
    register: SequenceRegister,
    channels: Channels,
    folder: Path,
    progress: Progress,
) -> tuple[Array, list[str]]:
    """Writes a table with one row per sequence; missing values at the end of a row are padding.

    Returns the lengths (N,) and notes.
    """
    import numpy as np

    roles = register.roles
    t_T = np.arange(len(roles.steps_TC))
    lengths = []
    with GrowingArray(folder / "values_SC.npy", channels.dtype, len(roles.channels)) as values:
        for table in tables:
            register.begin(table)
            for block in table.blocks(channels.columns_in(table)):
                values_RTC = channels.read(block).reshape(-1, len(t_T), len(roles.channels))
                channels.check_ignored(block, register.enter(block))
                present_RT = ~np.isnan(values_RTC).all(axis=2)
                lengths_R = np.where(present_RT, t_T + 1, 1).max(axis=1)
                values.append(values_RTC[t_T < lengths_R[:, None]])
                lengths.append(lengths_R)
                progress(f"reading {table.name}", block.share)
    np.save(folder / "lines.npy", register.lines_N)
    lengths_N = np.concatenate(lengths)
    shortest, longest = int(lengths_N.min()), int(lengths_N.max())
    ragged = f"Sequences have {shortest:,} to {longest:,} steps; each ends at its last value."
    return lengths_N, [ragged] if shortest < longest else []


def _write_long(
    tables: Sequence[TableFile],
    register: SequenceRegister,
    channels: Channels,
    folder: Path,
    progress: Progress,
) -> tuple[Array, list[str]]:
    """Writes a table with one row per step. Returns the lengths (N,) and notes."""
    import numpy as np

    rows = folder / "rows"
    rows.mkdir()
    in_order, empty = _read_rows(tables, register, channels, rows, progress)
    order_N = register.order()
    lengths_N = np.bincount(np.load(rows / "sequence.npy", mmap_mode="r"))[order_N]
    names = [path.name for path in rows.iterdir() if path.name != "sequence.npy"]
    if in_order and (order_N[1:] > order_N[:-1]).all():
        for name in names:
            (rows / name).rename(folder / name)
    else:
        _sort_by_sequence(rows, folder, names, np.argsort(order_N), lengths_N, progress)
    shutil.rmtree(rows)
    notes = []
    if register.roles.time is None:
        notes.append("There is no time column: the steps of a sequence are in the order of the rows.")
    elif moved := _sort_by_time(folder, names, lengths_N, register, progress):
        notes.append(f"The rows of {moved:,} of the {len(lengths_N):,} sequences were sorted by time.")
    if empty:
        before = int(lengths_N.sum())
        lengths_N = _without_tails(folder, names, lengths_N)
        if removed := before - int(lengths_N.sum()):
            notes.append(f"{removed:,} steps without any value at the ends of sequences were removed.")
    if register.roles.time_kind != "number":
        _measure_in_seconds(folder, register.roles.time_kind, lengths_N)
    return lengths_N, notes


def _read_rows(
    tables: Sequence[TableFile],
    register: SequenceRegister,
    channels: Channels,
    rows: Path,
    progress: Progress,
) -> tuple[bool, bool]:
    """Writes all rows in file order: values_SC, times_S, lines and the sequence of each.

    Returns whether the rows are already grouped by sequence, and whether any row has no values.
    """
    import numpy as np

    roles, in_order, empty, last = register.roles, True, False, 0
    with ExitStack() as stack:

        def file(name: str, dtype: str, *row: int) -> GrowingArray:
            return stack.enter_context(GrowingArray(rows / f"{name}.npy", dtype, *row))

        values, lines = file("values_SC", channels.dtype, len(roles.channels)), file("lines", "<i8")
        sequence, times_S = file("sequence", "<i8"), None
        labels_S = file("labels_S", "<i4") if roles.row_labels else None
        if roles.time is not None:
            times_S = file("times_S", "<f8" if roles.time_kind == "number" else "<i8")
        for table in tables:
            register.begin(table)
            for block in table.blocks(channels.columns_in(table)):
                sequence_R = register.enter(block)
                channels.check_ignored(block, sequence_R)
                values_RC = channels.read(block)
                values.append(values_RC)
                lines.append(block.lines_R)
                sequence.append(sequence_R)
                if labels_S is not None:
                    labels_S.append(register.labels(block))
                if times_S is not None and roles.time is not None:
                    times_S.append(times(block, roles.time, roles.time_kind))
                in_order &= bool(sequence_R[0] >= last and (sequence_R[1:] >= sequence_R[:-1]).all())
                empty |= bool(np.isnan(values_RC).all(axis=1).any())
                last = int(sequence_R[-1])
                progress(f"reading {table.name}", block.share)
    return in_order, empty


def _sort_by_sequence(
    rows: Path, folder: Path, names: list[str], places_N: Array, lengths_N: Array, progress: Progress
) -> None:
    """Counting sort: each row goes to the next free step of its sequence, so rows keep their order."""
    import numpy as np

    total = int(lengths_N.sum())
    free_N = np.cumsum(lengths_N) - lengths_N
    sources = {name: np.load(rows / name, mmap_mode="r") for name in names}
    targets = {name: _zeros(folder / name, source) for name, source in sources.items()}
    kinds = {name: (source.dtype, source.shape[1:]) for name, source in sources.items()}
    for begin in range(0, total, ROWS):
        sequence_R = places_N[_part(rows / "sequence.npy", np.dtype("<i8"), (), begin)]
        order_R = np.argsort(sequence_R, kind="stable")
        sorted_R = sequence_R[order_R]
        target_R = free_N[sorted_R] + np.arange(len(sorted_R)) - np.searchsorted(sorted_R, sorted_R)
        for name, target in targets.items():
            target[target_R] = _part(rows / name, *kinds[name], begin)[order_R]
        free_N += np.bincount(sequence_R, minlength=len(free_N))
        progress("sorting rows by sequence", begin / total)


def _part(path: Path, dtype: Any, row: tuple[int, ...], begin: int) -> Array:
    """Some rows of a .npy file. Read, not mapped: mapped pages would count as memory of this process."""
    import numpy as np

    width = int(np.prod(row))
    items = np.fromfile(path, dtype, ROWS * width, offset=HEADER + begin * width * dtype.itemsize)
    return items.reshape(-1, *row)


def _zeros(path: Path, like: Array) -> Array:
    """A mapped .npy file of zeros. They are written out, so that a full disk is an error, not a SIGBUS."""
    import numpy as np

    with GrowingArray(path, like.dtype.str, *like.shape[1:]) as file:
        for begin in range(0, len(like), ROWS):
            file.append(np.zeros((min(ROWS, len(like) - begin), *like.shape[1:]), like.dtype))
    mapped: Array = np.load(path, mmap_mode="r+")
    return mapped


def _sort_by_time(
    folder: Path, names: list[str], lengths_N: Array, register: SequenceRegister, progress: Progress
) -> int:
    """Sorts the steps of each sequence by time; returns how many sequences were out of order.

    Raises DataError, with both lines, if two steps of a sequence have the same time, or if time goes back in
    the only recording of a file.
    """
    import numpy as np

    arrays = {name: np.load(folder / name, mmap_mode="r+") for name in names}
    times_S, lines_S = arrays["times_S.npy"], arrays["lines.npy"]
    ends_N, moved = np.cumsum(lengths_N), 0
    for first, last in chunks(lengths_N, ROWS):
        steps = slice(int(ends_N[first] - lengths_N[first]), int(ends_N[last - 1]))
        if last - first == 1 and _rises(times_S, steps):  # it may be larger than memory
            progress("sorting steps by time", last / len(lengths_N))
            continue
        sequence = np.repeat(np.arange(first, last), lengths_N[first:last])
        same = sequence[1:] == sequence[:-1]
        backwards = same & (times_S[steps][1:] < times_S[steps][:-1])
        if backwards.any() and not register.roles.id:
            step = int(backwards.argmax()) + 1
            name, unit = register.file_of(first)
            raise DataError(
                f"{name}, {unit} {lines_S[steps][step]}: time goes back. If another recording begins here,"
                " set dataset.id to the column that tells them apart; if rows are out of order, sort them."
            )
        if backwards.any():
            moved += len(np.unique(sequence[1:][backwards]))
            order = np.lexsort((times_S[steps], sequence))
            for array in arrays.values():
                array[steps] = array[steps][order]
        equal = same & (times_S[steps][1:] == times_S[steps][:-1])
        if equal.any():
            step = int(equal.argmax())
            one, other = sorted(lines_S[steps][step : step + 2].tolist())
            name, unit = register.file_of(int(sequence[step]))
            raise DataError(
                f"{name}, {unit} {other}: same {register.roles.id_words} and {register.roles.time} as {unit}"
                f" {one}: the times of a sequence must all differ."
            )
        progress("sorting steps by time", last / len(lengths_N))
    return moved


def _rises(times_S: Array, steps: slice) -> bool:
    """Whether each of these times is later than the one before."""
    pieces = range(steps.start, steps.stop, ROWS)
    bounds = [(begin, min(begin + ROWS + 1, steps.stop)) for begin in pieces]
    return all((times_S[begin + 1 : end] > times_S[begin : end - 1]).all() for begin, end in bounds)


def _measure_in_seconds(folder: Path, kind: str, lengths_N: Array) -> None:
    """Replaces exact times, int64, by float64 since the start of each sequence.

    Float64 seconds since 1970 would lose what is shorter than 240 nanoseconds.
    """
    import numpy as np

    exact_S, ends_N = np.load(folder / "times_S.npy", mmap_mode="r"), np.cumsum(lengths_N)
    with GrowingArray(folder / "seconds_S.npy", "<f8") as file:
        for first, last in chunks(lengths_N, ROWS):
            lengths_n = lengths_N[first:last]
            starts_n = ends_N[first:last] - lengths_n
            if last - first == 1:  # it may be larger than memory
                begin, end = int(starts_n[0]), int(ends_N[first])
                for piece in range(begin, end, ROWS):
                    some_S = exact_S[piece : min(piece + ROWS, end)]
                    file.append(in_seconds(some_S - exact_S[begin], kind))
                continue
            origin_S = np.repeat(exact_S[starts_n], lengths_n)
            file.append(in_seconds(exact_S[int(starts_n[0]) : int(ends_N[last - 1])] - origin_S, kind))
    (folder / "seconds_S.npy").replace(folder / "times_S.npy")


def _without_tails(folder: Path, names: list[str], lengths_N: Array) -> Array:
    """Removes steps without values from the end of each sequence; returns the new lengths."""
    import numpy as np

    arrays = {name: np.load(folder / name, mmap_mode="r") for name in names}
    ends_N, lengths = np.cumsum(lengths_N), []
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(
                GrowingArray(folder / f"trimmed_{name}", array.dtype.str, *array.shape[1:])
            )
            for name, array in arrays.items()
        }
        for first, last in chunks(lengths_N, ROWS):
            steps = slice(int(ends_N[first] - lengths_N[first]), int(ends_N[last - 1]))
            begins = ends_N[first:last] - lengths_N[first:last] - steps.start
            within = np.arange(steps.stop - steps.start) - np.repeat(begins, lengths_N[first:last])
            present = ~np.isnan(arrays["values_SC.npy"][steps]).all(axis=1)
            lengths.append(np.maximum.reduceat(np.where(present, within + 1, 1), begins))
            kept = within < np.repeat(lengths[-1], lengths_N[first:last])
            for name, file in files.items():
                file.append(arrays[name][steps][kept])
    for name in names:
        (folder / f"trimmed_{name}").replace(folder / name)
    return np.concatenate(lengths)
