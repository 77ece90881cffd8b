"""Every key with a wrong type, a wrong range and a wrong name: one sentence in plain words."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import Field, fields
from importlib.util import find_spec
from types import NoneType
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rnnclf.config import GROUPS, NESTED, Config, kinds_of, unknown_key
from rnnclf.config_reading import in_words
from rnnclf.errors import ConfigError, RnnclfError
from rnnclf.hydra_app import load_config
from rnnclf.hydra_app.checks import plan
from rnnclf.hydra_app.compose import explained
from rnnclf.options import check, types_of

INTERNAL = re.compile(
    r"[Hh]ydra|[Oo]mega[Cc]onf|\w*(?:Config|Node|Error|Exception|Alt)\b|[Tt]ype hint|[Oo]ptional|[Uu]nion"
    r"|[Ss]truct|convert|merging|[Ii]nterpolation|subclass|<class|\bint\b|\bfloat\b|\bstr\b|None|EOF|\b(?:List|Dict)"
)
"""What only those know who know our libraries."""
WRONG = ["many", 2.5, True, None, [1], {"a": 1}]
FITTING: dict[Any, tuple[type, ...]] = {
    bool: (bool,), int: (int,), float: (int, float), str: (str, int, float, bool), NoneType: (NoneType,),
    list[str]: (list,), list[Any]: (list,), Any: (object,),
}  # fmt: skip
"""The values from which a type is made without a word."""


@functools.cache
def every_option() -> dict[str, tuple[type, Field[Any]]]:
    """A class that has the option, and its field, by key."""
    found: dict[str, tuple[type, Field[Any]]] = {}
    for group in ("", *NESTED, *GROUPS):
        for kind in kinds_of(group):
            for option in fields(kind):  # type: ignore[arg-type]
                found.setdefault(f"{group}.{option.name}".lstrip("."), (kind, option))
    apart = {*GROUPS, *NESTED, "plugins"}
    return {key: option for key, option in found.items() if key not in apart and not key.endswith(".name")}


@functools.cache
def node() -> Any:
    return OmegaConf.structured(Config)


def told(key: str, value: Any) -> str:
    """What is said about a value of an option; '' if it is accepted."""
    kind, option = every_option()[key]
    group = key.rpartition(".")[0]
    if group in GROUPS:
        node()[group] = OmegaConf.structured(kind)
    try:
        OmegaConf.update(node(), key, value)
        held = OmegaConf.to_container(node()[group] if group else node(), resolve=False)
        check(kind, {option.name: held[option.name]}, f"{group}." if group else "")  # type: ignore[index, call-overload]
    except (OmegaConfBaseException, RnnclfError) as error:
        return str(in_words(error))
    return ""


def assert_plain(message: str, key: str) -> None:
    assert message.startswith(f"{key} must be ")
    assert message.endswith((".", "?"))
    assert "\n" not in message
    assert not INTERNAL.search(message), message


def values_of(key: str) -> Iterator[Any]:
    """Values of a wrong type."""
    kind, option = every_option()[key]
    types = types_of(kind)[option.name]
    for value in WRONG:
        exact = isinstance(value, bool) and not {bool, str, Any} & {*types}
        if exact or not any(isinstance(value, FITTING[part]) for part in types):
            yield value


@pytest.mark.long
@pytest.mark.parametrize("group", ["", *NESTED, *GROUPS])
def test_a_wrong_type_is_refused_in_words(group):
    keys = [key for key in every_option() if key.rpartition(".")[0] == group]
    tried = [(key, value) for key in keys for value in values_of(key)]
    assert len(tried) > len(keys)
    for key, value in tried:
        assert_plain(told(key, value), key)


def test_a_value_out_of_range_is_refused_with_the_range():
    tried = 0
    for key, (_, option) in every_option().items():
        if option.metadata.get("choices"):
            assert_plain(told(key, "nonsense"), key)
        for side, limit in option.metadata.get("limits", {}).items():
            if limit is not None:
                tried += 1
                message = told(key, limit + {"low": -1, "above": 0, "high": 1, "below": 0}[side])
                assert_plain(message, key)
                assert str(limit) in message
    assert tried > 50


def test_a_misspelt_key_is_refused_with_the_right_one():
    for key, (kind, option) in every_option().items():
        group = key.rpartition(".")[0]
        message = unknown_key(f"{key}x", kind if group in GROUPS else None)
        assert f"'{option.name if group in GROUPS else key}x'" in message
        assert f"Did you mean '{option.name if group in GROUPS else key}'?" in message
        assert not INTERNAL.search(message), message


@pytest.mark.long
@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("hidden=null", "hidden must be a whole number of at least 1 and at most 1000000, got null."),
        ("threads=1.0", "threads must be auto or a whole number of at least 1 and at most 4096, got 1.0."),
        ("match_parameters=[1]", "match_parameters must be a number such as 30000, 30k or 1.5M or null, got"),
        ("clip=é", "clip must be a number above 0 or null, got 'é'."),
        ("hidden=[1", "hidden must be a whole number of at least 1 and at most 1000000, got '[1'."),
        ("hidden=${nothing}", "hidden holds a ${…} that stands for nothing: write a plain value."),
        ("cell={a:1}", "No cell named '{a:1}'. Known: basic, "),
        ("cell=null", "No cell named 'null'. Known: basic, "),
        ("checkpoint.every=[1]", "checkpoint.every must be epoch, a time such as 30s"),
        ("plugins={a:1}", "plugins: cannot import '{a:1}'"),
        ("dataset.nr=1", "dataset=mnist has no option 'nr'."),
        (f"{'x' * 3000}=3", "A name among the words is not possible: File name too long."),
        ("hydra.job.env_set=3", "hydra.job.env_set cannot be set to 3."),
        ("readout=a\nb", r"readout must be last, mean, max or attention, got 'a\nb'."),
        ("+new.key=3", "No key named 'new'."),
        ("cell.=3", "'cell.=3' is not of the form KEY=VALUE."),
    ],
)  # fmt: skip
def test_a_word_that_is_composed_is_refused_in_words(word, message):
    with pytest.raises(RnnclfError) as caught:
        load_config([word])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert not INTERNAL.search(str(caught.value).removeprefix("hydra.")), caught.value


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("joblib", "launchers"),
        ("submitit_local", "launchers"),
        ("submitit_slurm", "launchers"),
        ("ray", "ray"),
    ],
)
def test_a_launcher_that_is_not_installed_comes_with_the_line_that_installs_it(name, extra):
    missing = MissingConfigException("no", f"hydra/launcher/{name}", ["basic"])
    assert (
        str(explained(missing)) == f"hydra/launcher={name} is not installed: pip install 'rnnclf[{extra}]'."
    )


def test_our_launcher_for_slurm_is_told_by_its_own_name_when_submitit_is_missing(monkeypatch):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    Plugins.instance()  # stores what is installed
    monkeypatch.delitem(ConfigStore.instance().repo["hydra"]["launcher"], "submitit_slurm.yaml")
    with pytest.raises(ConfigError) as caught:
        plan(["hydra/launcher=slurm"])
    assert str(caught.value) == ("hydra/launcher=slurm is not installed: pip install 'rnnclf[launchers]'.")


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed here")
def test_a_sweep_on_a_cluster_of_ray_needs_its_extra(cli):
    done = cli("train", "-m", "hydra/launcher=ray_cluster", "seed=0,1")
    assert done.exit_code == 2
    assert "hydra/launcher=ray is not installed: pip install 'rnnclf[ray]'." in " ".join(done.stderr.split())


@pytest.mark.long
def test_an_experiment_of_ones_own_that_lacks_its_first_line_is_told_so(cli, tmp_path):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    file = tmp_path / "mine" / "experiment" / "own.yaml"
    file.write_text("hidden: 3\n")
    done = cli("train", "-cd", "mine", "experiment=own")
    assert (done.exit_code, done.stderr) == (
        2,
        "error: The file of an experiment of your own must begin with the line '# @package _global_'.\n",
    )
    file.write_text("# @package _global_\nhidden: 3\n")
    assert "hidden: 3\n" in cli("train", "-cd", "mine", "experiment=own", "--cfg", "job").stdout
