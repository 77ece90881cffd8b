"""Keys, types, ranges: what is refused, how it is said, and that no key is dead."""

from __future__ import annotations

import contextlib
import copy
import functools
import tempfile
from dataclasses import fields
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnclf.config import GROUPS, Config, known_keys
from rnnclf.config_reading import from_plain
from rnnclf.errors import ConfigError, RnnclfError
from rnnclf.hydra_app import load_config, overridden
from rnnclf.stack import Stack
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.train import train
from tests.conftest import rows_without_times

SMALL = ["hidden=4", "epochs=2", "threads=1"]
SMALL_DIGITS = ["dataset=digits", "dataset.validation=30", "dataset.test=1500"]


def test_the_former_name_of_an_engine_stands_for_its_present_one():
    config = load_config(["engine=compiled"])
    assert config.engine == config.stack().engine == "machine"
    assert Stack(engine="compiled").engine == "machine"


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hiden=3"], "No key named 'hiden'. Did you mean 'hidden'?"),
        (["lr=0.1"], "No key named 'lr'. Did you mean 'optimizer.lr'?"),
        (["cell=gruu"], "No cell named 'gruu'. Did you mean 'gru'? All: rnnclf list cells."),
        (
            ["cell=lstm", "engine=scan"],
            "engine=scan cannot run cell=lstm, only machine or native or fused or loop can: use",
        ),
        (["cell=mingru", "zoneout=0.1"], "cell=mingru does not support that."),
        (
            ["cell=slstm", "cell.heads=4", "hidden=6"],
            "hidden must be a multiple of 4 for this cell=slstm, got 6.",
        ),
        (
            ["match_parameters=many"],
            "match_parameters must be a number such as 30000, 30k or 1.5M, got 'many'.",
        ),
        pytest.param(
            ["match_parameters=0"],
            "match_parameters must be a number such as 30000, 30k or 1.5M, got '0'.",
            marks=pytest.mark.long,
        ),
        pytest.param(["match_parameters=[1]"], "match_parameters", marks=pytest.mark.long),
        (
            ["cell=lstm", "cell.forget_bais=1"],
            "no option 'forget_bais'. Did you mean 'forget_bias'?",
        ),
        pytest.param(
            ["cell=gru", "cell.nonlinearity=relu"],
            "cell=gru has no option 'nonlinearity'.",
            marks=pytest.mark.long,
        ),
        (["+foo=1"], "No key named 'foo'."),
        pytest.param(["+cell.foo=1"], "cell=basic has no option 'foo'.", marks=pytest.mark.long),
        (["hidden=abc"], "hidden must be a whole number of at least 1 and at most 1000000, got 'abc'."),
        pytest.param(["hidden=3.5"], "at most 1000000, got 3.5.", marks=pytest.mark.long),
        (["bidirectional=2.5"], "bidirectional must be true or false, got 2.5."),
        (["hidden=-5"], "hidden must be at least 1 and at most 1000000, got -5."),
        pytest.param(
            ["dropout=1"], "dropout must be at least 0 and below 1, got 1.0.", marks=pytest.mark.long
        ),
        (["optimizer.lr=nan"], "optimizer.lr must be above 0, got nan."),
        pytest.param(["optimizer.lr=inf"], "optimizer.lr must be above 0, got inf.", marks=pytest.mark.long),
        pytest.param(
            ["precision=bf17"],
            "precision must be float32, tf32 or bf16, got 'bf17'. Did you mean 'bf16'?",
            marks=pytest.mark.long,
        ),
        pytest.param(
            ["engine=machine", "precision=bf16"],
            "engine=machine computes in float32 only: with",
            marks=pytest.mark.long,
        ),
        (["readout=lats"], "readout must be last, mean, max or attention, got 'lats'. Did you mean 'last'?"),
        (
            ["threads=many"],
            "threads must be auto or a whole number of at least 1 and at most 4096, got 'many'.",
        ),
        pytest.param(["threads=0"], "threads must be at least 1", marks=pytest.mark.long),
        (["cell.name=gru"], "The name 'basic' cannot be changed to 'gru'"),
        (["experiment=tutorail"], "No experiment named 'tutorail'. Did you mean 'tutorial'?"),
        (["~optimizer"], "optimizer cannot be removed: choose one with optimizer=NAME"),
        (["optimizer=sgd", "optimizer.nesterov=true", "optimizer.momentum=0"], "needs a momentum above 0"),
        (["hidden=9", "cell.hidden_size=7"], "hidden and cell.hidden_size set the same number"),
        (["hidden=9", "match_parameters=2k"], "match_parameters chooses hidden: leave out hidden."),
        (["nonsense"], "'nonsense' is neither an existing path nor of the form KEY=VALUE."),
        (["plugins=[no_such_module]"], "plugins: cannot import 'no_such_module'"),
    ],
)
def test_a_wrong_word_is_refused_in_words(words, message):
    with pytest.raises(RnnclfError) as caught:
        load_config(words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_line_gives_the_defaults():
    config = load_config([])
    assert (config.cell.name, config.dataset.name, config.hidden) == ("basic", "mnist", 150)
    assert config.cell.hidden_size == 150


def choices() -> list[Any]:
    """Lines in which each choice of each group occurs, one of each group in a line."""
    cases = []
    for names in zip_longest(*(GROUPS[group].names() for group in GROUPS)):
        marks = () if any(names[1:]) else pytest.mark.long  # only a cell is left
        chosen = {group: name for group, name in zip(GROUPS, names, strict=True) if name}
        cases.append(pytest.param(chosen, id="-".join(chosen.values()), marks=marks))
    return cases


@pytest.mark.long
@pytest.mark.parametrize("chosen", choices())
def test_a_choice_has_its_file_gets_its_size_and_survives_the_way_into_a_checkpoint_and_back(chosen):
    config = load_config([*(f"{group}={name}" for group, name in chosen.items()), "clip=null", "hidden=7"])
    for group, name in chosen.items():
        assert type(getattr(config, group)) is GROUPS[group][name]
        assert getattr(config, group).name == name
    assert config.cell.hidden_size == 7
    again = from_plain(config.to_plain())
    assert again == config
    assert again.digest() == config.digest()


@pytest.mark.long
def test_the_digest_changes_with_any_value():
    digests = [
        load_config(words).digest()
        for words in ([], ["hidden=3"], ["cell.recurrent_init=glorot"], ["seed=1"])
    ]
    assert len(set(digests)) == len(digests)


@functools.cache
def defaults() -> Config:
    """To read, not to change."""
    return load_config([])


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "???", "a${hidden}"])
@pytest.mark.parametrize("key", ["readout", "protocol"])
def test_nothing_in_a_checkpoint_is_resolved(key, text):
    plain = {**defaults().to_plain(), key: text}
    with pytest.raises(ConfigError, match="not a plain value"):
        from_plain(plain)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=8), parts, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(key=st.sampled_from([f.name for f in fields(Config)]), value=JSON, deeper=st.booleans())
def test_a_strangers_config_gives_a_config_or_a_clean_error(key, value, deeper):
    plain: dict[str, Any] = copy.deepcopy(defaults().to_plain())
    if deeper and isinstance(plain[key], dict):
        plain[key][next(iter(plain[key]))] = value
    else:
        plain[key] = value
    with contextlib.suppress(RnnclfError):  # anything else that is raised fails the test
        assert isinstance(from_plain(plain), Config)


def test_overridden_changes_just_what_is_named():
    config = load_config(["cell=lstm", "hidden=9"])
    changed = overridden(config, ["threads=2", "dataset=digits", "dataset.test=99"])
    assert (changed.threads, changed.dataset.name, changed.dataset.test) == (2, "digits", 99)
    assert (changed.cell, changed.hidden) == (config.cell, 9)


@pytest.mark.parametrize("word", ["threads=1,2", "+threads=x", "~threads", "dataset.tset=3", "dataset=mnits"])
def test_overridden_refuses_what_is_no_plain_value(word):
    with pytest.raises(ConfigError):
        overridden(defaults(), [word])


# Every key, with a value that must change the outcome of a small run, and what must be set beside it.
# `{}` stands for the keys whose effect is shown elsewhere: test_data.py, test_cli.py.
TABLE = ["dataset=table", "dataset.path=DATA/one.csv", "dataset.normalise=none"]
ARRAYS = ["dataset=arrays", "dataset.path=DATA/x.npy", "dataset.normalise=none"]

CHANGES: dict[str, list[str]] = {
    "cell": ["cell=lstm"],
    "optimizer": ["optimizer=sgd"],
    "schedule": ["schedule=constant"],
    "dataset": ["dataset.validation=31"],
    "experiment": ["experiment=tutorial", "dataset=digits", "epochs=2", "hidden=4"],
    "hidden": ["hidden=5"],
    "axes": ["axes=both"],
    "layers": ["layers=2"],
    "bidirectional": ["bidirectional=true"],
    "readout": ["readout=mean"],
    "residual": ["layers=2", "residual=true"],
    "norm": ["norm=layer"],
    "readout_layers": ["layers=2", "readout_layers=all"],
    "dropout": ["dropout=0.5"],
    "variational": ["layers=2", "dropout=0.5", "variational=true"],
    "recurrent_dropout": ["recurrent_dropout=0.5"],
    "input_dropout": ["input_dropout=0.5"],
    "zoneout": ["zoneout=0.5"],
    "precision": ["precision=bf16"],
    "match_parameters": ["match_parameters=2k"],
    "epochs": ["epochs=3"],
    "batch_size": ["batch_size=20"],
    "updates": ["updates=20"],
    "select": ["epochs=6", "optimizer.lr=0.1", "select=last"],
    "final_fit": ["final_fit=true"],
    "recipe": ["dataset=table", "dataset.path=DATA/one.csv", "recipe=plain"],
    "clip": ["clip=0.01"],
    "label_smoothing": ["label_smoothing=0.1"],
    "class_weights": ["class_weights=balanced"],
    "focal": ["focal=2"],
    "sampling": ["sampling=balanced"],
    "protocol": ["protocol=tutorial"],
    "on_divergence": ["optimizer.lr=1e38", "on_divergence=rollback"],
    "seed": ["seed=1"],
    "cell.hidden_size": ["cell.hidden_size=5"],
    "cell.input_init": ["cell.input_init=torch"],
    "cell.recurrent_init": ["cell.recurrent_init=identity"],
    "cell.nonlinearity": ["cell.nonlinearity=relu"],
    "cell.forget_bias": ["cell=lstm", "cell.forget_bias=2"],
    "optimizer.lr": ["optimizer.lr=0.01"],
    "optimizer.weight_decay": ["optimizer.weight_decay=0.5"],
    "optimizer.beta1": ["optimizer.beta1=0.5"],
    "optimizer.beta2": ["optimizer.beta2=0.5"],
    "optimizer.eps": ["optimizer.eps=0.1"],
    "optimizer.momentum": ["optimizer=sgd", "optimizer.momentum=0.5"],
    "optimizer.nesterov": ["optimizer=sgd", "optimizer.nesterov=true"],
    "optimizer.alpha": ["optimizer=rmsprop", "optimizer.alpha=0.5"],
    "schedule.warmup": ["schedule.warmup=0.6"],
    "schedule.start": ["schedule.start=0.5"],
    "schedule.final": ["schedule.final=0.9"],
    "dataset.validation": ["dataset.validation=32"],
    "dataset.test": ["dataset.test=1400"],
    "dataset.split": ["dataset.split=first"],
    "dataset.split_seed": ["dataset.split_seed=1"],
    "dataset.folds": ["dataset.folds=3"],
    "dataset.fold": ["dataset.folds=3", "dataset.fold=1"],
    "dataset.normalise": ["dataset.normalise=standard"],
    "dataset.sequence": ["dataset.sequence=columns"],
    "dataset.patch": ["dataset.sequence=patches", "dataset.patch=2"],
    "dataset.permutation": ["dataset.sequence=pixels", "dataset.permutation=bitrev"],
    "dataset.path": [*TABLE, "dataset.path=DATA/other.csv"],
    "dataset.test_path": [*TABLE, "dataset.test_path=DATA/other.csv"],
    "dataset.missing": [*TABLE, "dataset.path=DATA/gaps.csv", "dataset.missing=interpolate"],
    "dataset.form": [*TABLE, "dataset.form=wide"],
    "dataset.id": [*TABLE, "dataset.id=number"],
    "dataset.time": [*TABLE, "dataset.time=later"],
    "dataset.label": [*TABLE, "dataset.label=colour"],
    "dataset.channels": [*TABLE, "dataset.channels=[x0]"],
    "dataset.categorical": [*TABLE, "dataset.categorical=[x0]"],
    "dataset.group": [*TABLE, "dataset.group=ward"],
    "dataset.split_column": [*TABLE, "dataset.split_column=part"],
    "dataset.missing_values": [*TABLE, "dataset.label=colour", "dataset.missing_values=[r]"],
    "dataset.delimiter": [*TABLE, "dataset.delimiter=semicolon"],
    "dataset.labels": [*ARRAYS, "dataset.labels=DATA/z.npy"],
    "dataset.axes": [*ARRAYS, "dataset.axes=NCT"],
    "augment": ["augment=image"],
    "augment.shift": ["augment=image", "augment.shift=3"],
    "augment.rotate": ["augment=image", "augment.rotate=90"],
    "augment.scale": ["augment=image", "augment.scale=0.5"],
    "augment.shear": ["augment=image", "augment.shear=30"],
    "augment.elastic": ["augment=image", "augment.elastic=34"],
    "augment.elastic_sigma": ["augment=image", "augment.elastic=34", "augment.elastic_sigma=1"],
    "augment.flip": ["augment=image", "augment.flip=0.5"],
    "augment.share": ["augment=image", "augment.share=0.5"],
    "augment.jitter": ["augment=series", "augment.jitter=0.5"],
    "augment.time_warp": ["augment=series", "augment.time_warp=1"],
    "augment.crop": ["augment=series", "augment.crop=0.5"],
    "augment.time_mask": ["augment=series", "augment.time_mask=0.5"],
    "augment.channel_drop": ["augment=series", "augment.channel_drop=0.5"],
    "patience": ["epochs=6", "optimizer.lr=0.1", "patience=1"],
    "average": ["average=ema"],
    "average.decay": ["average=ema", "average.decay=0.05"],
    "average.start": ["average=swa", "average.start=0.1"],
}
SHOWN_ELSEWHERE = {"device", "threads", "plugins", "engine"}
# test_resume.py shows that it changes when files are written, and nothing of the outcome
SHOWN_ELSEWHERE |= {"checkpoint.every"}
# test_training.py shows that it makes the same steps in another way
SHOWN_ELSEWHERE |= {"graph"}
# test_places.py shows that it is part of the folder's name, and not of the digest
SHOWN_ELSEWHERE |= {"name"}
# test_diagnosis.py shows that it adds a file, and changes nothing of the outcome
SHOWN_ELSEWHERE |= {"diagnose"}
# test_plots.py shows that it adds files, and changes nothing of the outcome
SHOWN_ELSEWHERE |= {"plots"}
# test_init.py shows that these begin with the weights of another model
SHOWN_ELSEWHERE |= {"init", "init_sha256", "freeze"}
# test_early_stopping.py shows that it ends training
SHOWN_ELSEWHERE |= {"max_time"}
# test_repeats.py shows that these two make a sweep
SHOWN_ELSEWHERE |= {"seeds", "folds"}
# trackers/test_tracking.py shows that it changes nothing
SHOWN_ELSEWHERE |= {"tracker"}
# test_data_images.py shows these, with files like the published ones
SHOWN_ELSEWHERE |= {"dataset.root", "dataset.colour", "dataset.variant"}
# test_table_cases.py shows these, with values that they read in another way
SHOWN_ELSEWHERE |= {"dataset.decimal", "dataset.sheet", "dataset.time_format"}
# tests/data/test_windows.py shows that these cut other sequences
SHOWN_ELSEWHERE |= {"dataset.window", "dataset.step", "dataset.window_label", "dataset.block"}
# test_cells.py proves for every cell that each of its options changes it
OPTIONS_OF_CELLS = {f"cell.{option.name}" for _, kind in GROUPS["cell"].items() for option in fields(kind)}


@functools.cache
def own_data() -> Path:
    """A table whose columns could be used in more than one way, a second such, and arrays."""
    folder = Path(tempfile.mkdtemp())
    random = np.random.default_rng(0)
    for name in ("one", "other", "gaps"):
        rows = ["id,number,time,later,x0,x1,label,colour,person,ward,part"]
        for n in range(60):
            part = ("train", "validation", "test")[n % 5 % 3]
            for t in range(6):
                values = random.normal(n % 2, 1, 2)
                times = f"{t},{5 - t}"  # the one backwards to the other
                last = f"{'ab'[n % 2]},{'rg'[n // 2 % 2]},p{n // 3},w{n // 5},{part}"
                rows.append(f"{n},{59 - n},{times},{values[0]},{values[1]},{last}")
        if name == "gaps":
            rows[4] = rows[4].replace(rows[4].split(",")[5], "")
        (folder / f"{name}.csv").write_text("\n".join(rows))
    np.save(folder / "x.npy", random.normal(size=(40, 3, 4)))
    np.save(folder / "y.npy", np.arange(40) % 2)
    np.save(folder / "z.npy", np.arange(40) // 2 % 2)
    return folder


@functools.cache
def outcome(*words: str) -> str:
    """All that a run writes of its epochs, times left out; or why there is none."""
    base = SMALL if any("dataset=" in word for word in words) else [*SMALL, *SMALL_DIGITS]
    try:
        config = load_config([*base, *(word.replace("DATA", str(own_data())) for word in words)])
        folder = RunFolder(Path(tempfile.mkdtemp(dir=Path.cwd())))
        report = train(config, folder)
    except RnnclfError as error:
        return str(error)
    return "\n".join(map(str, [*rows_without_times(folder.epochs), report.scores]))


def test_every_key_is_in_the_table_of_changes():
    named = {key for key in known_keys() if not key.endswith(".name")}
    assert set(CHANGES) | SHOWN_ELSEWHERE == named - (OPTIONS_OF_CELLS - set(CHANGES))


DAILY = ("cell", "hidden", "bidirectional", "readout", "epochs", "batch_size", "seed")


@pytest.mark.long
@pytest.mark.parametrize(
    "key", [pytest.param(key, marks=() if key in DAILY else pytest.mark.slow) for key in CHANGES]
)
def test_no_key_is_dead(key):
    words = CHANGES[key]
    base = words[:-1] if words[-1].startswith(f"{key}=") else []
    assert outcome(*words) != outcome(*base)


@pytest.mark.long
def test_the_same_config_gives_the_same_outcome():
    assert outcome("seed=3") == outcome("seed=3", "cell=basic")
