"""Where the cache is, and that it only ever costs time."""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path

import pytest

from rnnclf.data import cache
from rnnclf.data.cache import identity, seal, unsealed
from rnnclf.data.conversion import unpack
from rnnclf.data.recordings import silent
from rnnclf.errors import DataError
from rnnclf.system.user_cache import cache_root


@pytest.fixture
def homeless(tmp_path, monkeypatch):
    """No HOME and a user without a name, as in a container; returns the system's temporary folder."""

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_without_a_home_folder_the_cache_is_a_private_folder(homeless):
    root = cache_root()
    assert root == homeless / f"rnnclf-{os.getuid()}"
    assert root.stat().st_mode & 0o777 == 0o700
    assert cache_root() == root


def test_a_folder_that_others_can_write_is_not_trusted(homeless):
    cache_root().chmod(0o777)
    assert cache_root() == Path(os.devnull) / "rnnclf"
    cache.remember(cache_root() / "x", b"text")  # no error


def test_a_link_in_its_place_is_not_followed(homeless):
    (homeless / f"rnnclf-{os.getuid()}").symlink_to(homeless)
    assert cache_root() == Path(os.devnull) / "rnnclf"


def test_a_home_folder_that_cannot_exist_is_none(homeless, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/dev/null"))
    assert cache_root().parent == homeless
    monkeypatch.setattr(Path, "home", lambda: homeless / "not" / "yet")
    assert cache_root() == homeless / "not" / "yet" / ".cache" / "rnnclf"


def test_what_was_sealed_is_read_back_and_nothing_else(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"content")
    seal(tmp_path, "facts.json", {"classes": ["ä"], "numbers": [0.1, 1e300]})
    assert unsealed(tmp_path, "facts.json")["numbers"] == [0.1, 1e300]
    (tmp_path / "a.npy").write_bytes(bytes(7))
    with pytest.raises(ValueError, match=r"a\.npy is damaged"):
        unsealed(tmp_path, "facts.json")


@pytest.fixture
def archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("x", b"content")
    with zipfile.ZipFile(tmp_path / "a.zip") as file:
        yield file


def test_an_unpacked_file_of_the_right_size_and_other_content_is_unpacked_again(archive, tmp_path):
    members = {"x": archive.infolist()[0]}
    folder = unpack(archive, members, tmp_path / "unpacked", silent)
    (folder / "x").write_bytes(bytes(7))
    assert unpack(archive, members, tmp_path / "unpacked", silent) == folder
    assert (folder / "x").read_bytes() == b"content"


def test_without_a_writable_cache_files_are_unpacked_to_a_temporary_folder(archive):
    folder = unpack(archive, {"x": archive.infolist()[0]}, Path("/dev/null/unpacked"), silent)
    assert (folder / "x").read_bytes() == b"content"


def test_files_that_fit_nowhere_are_told(archive, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1}))
    with pytest.raises(DataError, match=r"only 0\.0 GiB are free\. Set XDG_CACHE_HOME=DIR"):
        unpack(archive, {"x": archive.infolist()[0]}, Path("unpacked"), silent)


@pytest.mark.parametrize("size", [10, 3 * 2**20])
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_a_file_replaced_by_one_of_the_same_size_and_time_is_another(tmp_path, size, place):
    path, other = tmp_path / "a.npy", tmp_path / "b.npy"
    path.write_bytes(bytes(size))
    content = bytearray(size)
    content[min(int(place * size), size - 1)] = 1
    other.write_bytes(content)
    before = identity(path)
    os.utime(other, ns=(before[2], before[2]))
    os.replace(other, path)
    after = identity(path)
    assert after[:3] == before[:3]
    assert after != before
    assert identity(path) == after


def test_where_no_time_tells_the_content_does(tmp_path):
    """Some file systems keep times of two seconds only."""
    path = tmp_path / "a.npy"
    found = []
    for content in (b"one", b"two"):
        path.write_bytes(content)
        os.utime(path, (0, 0))
        found.append(identity(path)[4])
    assert found[0] != found[1]
