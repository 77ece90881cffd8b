"""The package works installed from a wheel and from an sdist, run from any folder."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow


def run(*words: object, cwd: Path) -> str:
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist, and the wheel built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "pip", "install", "--quiet", "build", cwd=ROOT)
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=ROOT)
    return folder


def test_wheel_and_sdist_hold_what_is_no_code(built):
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    packed = {*zipfile.ZipFile(wheel).namelist()}
    folders = (ROOT / "rnnclf" / "report" / "templates", ROOT / "rnnclf" / "export" / "demo")
    templates = [path.relative_to(ROOT) for folder in folders for path in folder.iterdir()]
    assert {"rnnclf/conf/cell/lstm.yaml", *map(str, templates)} <= packed
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"conf/cell/lstm.yaml", "outputs/.gitignore", "README.md", "LICENSE"} <= names


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_an_installed_package_trains_from_any_folder(built, tmp_path, kind):
    """The heavy packages come from the environment of the tests; ours is installed beside them."""
    (package,) = built.glob(kind)
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", package, cwd=tmp_path)
    site = next((tmp_path / "env" / "lib").glob("python*/site-packages"))
    here = Path(pytest.__file__).resolve().parents[1]
    # ours first: the test environment may hold an editable install of this checkout
    (site / "zz_tests.pth").write_text(f"{here}\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    rnnclf = tmp_path / "env" / "bin" / "rnnclf"
    assert str(site / "rnnclf" / "conf") in run(rnnclf, "train", "--info", "searchpath", cwd=elsewhere)
    run(rnnclf, "train", "dataset=digits", "hidden=8", "epochs=1", cwd=elsewhere)
    assert len(list(elsewhere.glob("outputs/*/*/results.json"))) == 1
