"""What to do with files of a kind that is not read. Torch-free."""

from __future__ import annotations

from pathlib import Path

FROM_PANDAS = "read it with pandas and save it with to_parquet('new.parquet')"
AS_ARRAYS = "save its arrays with np.savez('new.npz', x=x, y=y)"
UNPACK = "unpack it"
ADVICE = {
    **dict.fromkeys((".xls", ".xlsb", ".ods", ".numbers"), "save it as .xlsx or .csv"),
    ".json": "save it as JSON lines, in pandas with to_json('new.jsonl', orient='records', lines=True)",
    **dict.fromkeys((".pkl", ".pickle", ".joblib", ".pt", ".pth"), f"it could run code, so {AS_ARRAYS}"),
    **dict.fromkeys((".tfrecord", ".tfrecords", ".zarr", ".nc", ".safetensors"), AS_ARRAYS),
    **dict.fromkeys((".sqlite", ".sqlite3", ".db", ".duckdb", ".mdb"), "export its table as .csv"),
    **dict.fromkeys((".sas7bdat", ".sav", ".dta", ".orc", ".avro", ".xml", ".html"), FROM_PANDAS),
    **dict.fromkeys((".rds", ".rda", ".rdata"), "save it in R with write.csv(x, 'new.csv', row.names=FALSE)"),
    **dict.fromkeys((".mp3", ".flac", ".ogg", ".m4a", ".aac", ".aiff", ".mp4"), "convert it to .wav"),
    **dict.fromkeys(
        (".edf", ".bdf", ".gdf", ".vhdr", ".fif", ".set", ".c3d", ".dcm", ".dat", ".hea", ".tdms", ".bin"),
        AS_ARRAYS,
    ),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff"), AS_ARRAYS),
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".tar", ".tgz", ".7z", ".rar", ".zip"), UNPACK),
    **dict.fromkeys((".log", ".asc", ".data", ".dsv", ""), "if it is delimited text, rename it to .csv"),
}
"""By suffix, in lower case."""


def advice(path: Path) -> str:
    """What to do with a file that is not read, as a sentence with a space before it; '' if not known."""
    known = "" if path.is_dir() else ADVICE.get(path.suffix.lower(), "")
    return f" {known[0].upper()}{known[1:]}." if known else ""
