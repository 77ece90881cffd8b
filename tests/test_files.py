"""Folders that cannot be made: what is said names what is in the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from rnnclf.errors import OutputError
from rnnclf.files import claim_folder, made_folder


@pytest.mark.parametrize("make", [made_folder, claim_folder])
def test_a_dangling_link_in_the_way_is_named(make):
    Path("outputs").symlink_to("/nowhere/x")
    with pytest.raises(OutputError, match=r": outputs is a link to /nowhere/x, which does not exist\.$"):
        make(Path("outputs"))


@pytest.mark.parametrize("make", [made_folder, claim_folder])
@pytest.mark.parametrize("below", ["", "/deeper"])
def test_a_file_in_the_way_is_named(make, below):
    Path("outputs").write_text("")
    with pytest.raises(OutputError, match=r"^Cannot create the folder outputs\S*: outputs is a file\.$"):
        make(Path(f"outputs{below}"))
