"""Hostile files of the user's data."""

from __future__ import annotations

import io
import random
import shutil
import zipfile

from benchmarks.reliability.hostile.changes import changed_bytes
from benchmarks.reliability.hostile.ground import Ground, said


def good_data() -> dict[str, bytes]:
    """Small valid files of the user's data, by the path at which they are read."""
    import h5py
    import numpy as np
    import polars as pl
    from scipy.io import savemat, wavfile

    x, y = np.arange(60.0).reshape(6, 5, 2), np.array(["walk", "run"] * 3)
    packed, matlab, plain, sound, groups, sheet, parquet, feather = (io.BytesIO() for _ in range(8))
    np.savez_compressed(packed, x_train=x, y_train=y, x_test=x, y_test=y)
    savemat(matlab, {"X": x, "y": y}, do_compression=True)
    savemat(plain, {"X": x, "y": np.arange(6) % 2})
    wavfile.write(sound, 8000, np.arange(12, dtype=np.int16).reshape(6, 2))
    with h5py.File(groups, "w") as file:
        file["train/x"], file["train/y"], file["test/x"], file["test/y"] = x, y.tolist(), x, y.tolist()
    table = pl.DataFrame({"id": [1, 1, 2], "x": [0.5, None, 3.0], "label": ["walk", "walk", "run"]})
    table.write_excel(sheet)
    table.write_parquet(parquet)
    table.write_ipc(feather)
    nested = "@relation a\n@attribute r relational\n@attribute t1 numeric\n@attribute t2 numeric\n@end r\n"
    nested += "@attribute c {walk,run}\n@data\n'1,2\\n3,4',walk\n'5,6\\n7,8',run\n"
    flat = "@relation a\n@attribute t1 numeric\n@attribute t2 real\n@attribute c {walk,run}\n@data\n"
    flat += "1,?,walk\n3,4,run\n"
    return {
        "a.npz": packed.getvalue(),
        "a.mat": matlab.getvalue(),
        "b.mat": plain.getvalue(),
        "a.arff": nested.encode(),
        "b.arff": flat.encode(),
        "a.h5": groups.getvalue(),
        "a.xlsx": sheet.getvalue(),
        "a.parquet": parquet.getvalue(),
        "a.feather": feather.getvalue(),
        "a.jsonl": table.write_ndjson().encode(),
        "lists.jsonl": b'{"label": "walk", "x": [[1, 2], [3, null]]}\n{"label": "run", "x": [[4, 5]]}\n',
        "channels/y.txt": b"1\n2\n",
        "channels/a.txt": b" 1.5 2.5\n 3 4\n",
        "sheets/walk/a.xlsx": sheet.getvalue(),
        "a_TRAIN.tsv": b"1\t0.5\t1.5\n2\t2\t3\n",
        "sounds/walk/a.wav": sound.getvalue(),
        "pandas/walk/a.csv": b",date,x\n0,2024-01-01 10:00:00,2\n1,2024-01-01 10:00:01.5,3\n",
        "together/labels.csv": b"file,label\na.csv,walk\nb.csv,run\n",
    }


def changed_member(rng: random.Random, content: bytes) -> bytes:
    """A .zip file with one of its members changed."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(changed, "w") as new:
        chosen = rng.choice(old.namelist())
        for name in old.namelist():
            part = old.read(name)
            new.writestr(name, changed_bytes(rng, part) if name == chosen else part)
    return changed.getvalue()


def try_data(rng: random.Random, ground: Ground) -> str:
    """What reads data of the user's own, with one file changed."""
    from rnnclf.data import DATASETS
    from rnnclf.data.recognition import source_for
    from rnnclf.errors import RnnclfError

    if "good" not in ground.data:
        ground.data["good"] = good_data()
    name = rng.choice(sorted(ground.data["good"]))
    content, file = ground.data["good"][name], ground.folder / "own" / name
    top = ground.folder / "own" / name.partition("/")[0]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        inside = name.endswith(".xlsx") and rng.random() < 0.7
        file.write_bytes(changed_member(rng, content) if inside else changed_bytes(rng, content))
        options = {"path": str(top)}
        if name.startswith("together"):
            options["labels"] = str(file)
            for other in ("a.csv", "b.csv"):
                (top / other).write_text("1,2\n3,4\n")
        elif name.startswith("channels"):
            for other in {"channels/a.txt", "channels/y.txt"} - {name}:
                (top.parent / other).write_bytes(ground.data["good"][other])
        elif top != file:
            (top / "run").mkdir(exist_ok=True)
            (top / "run" / file.name).write_bytes(content)
        try:
            assert len(DATASETS[source_for(str(top))](**options).read())
            return f"{name} read"
        except RnnclfError as error:
            said(str(error), None)
            return f"{name} refused"
    finally:
        shutil.rmtree(ground.folder / "own", ignore_errors=True)
