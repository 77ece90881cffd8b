"""Which words open the space of a search, and which hold for all of its runs."""

from __future__ import annotations

import pytest

from rnnclf.config import known_keys
from rnnclf.errors import ConfigError, RnnclfError
from rnnclf.hydra_app import load_config
from rnnclf.hydra_app.search_words import NOT_SEARCHED, READING, searched
from rnnclf.tuning.space import Choice, Real, Whole, edge_points, words


@pytest.mark.parametrize(
    ("typed", "dimension"),
    [
        ("optimizer.lr=interval(1e-4,0.1)", Real(1e-4, 0.1)),
        ("optimizer.lr=tag(log,interval(1e-4,1e-1))", Real(1e-4, 0.1, log=True)),
        ("optimizer.lr = tag(log, interval(1e-4, 1e-1))", Real(1e-4, 0.1, log=True)),
        ("dropout=interval(0,1)", Real(0.0, 1.0)),  # typed as whole numbers, but the option takes fractions
        ("clip=interval(1,10)", Real(1.0, 10.0)),
        ("hidden=interval(8,128)", Whole(8, 128)),
        ("hidden=tag(log,interval(8,128))", Whole(8, 128, log=True)),
        ("hidden=interval(8.0,1e2)", Whole(8, 100)),
        ("hidden=range(8,129,8)", Whole(8, 128, step=8)),  # Hydra leaves out the stop
        ("hidden=range(8,128,8)", Whole(8, 120, step=8)),
        ("hidden=range(128,0,-8)", Whole(8, 128, step=8)),
        ("hidden=range(1,1000000000000000000000)", Whole(1, 10**21 - 1)),
        ("layers=range(1,4)", Whole(1, 3)),
        ("hidden=tag(log,range(8,65))", Whole(8, 64, log=True)),
        ("dropout=range(0,0.3,0.1)", Choice(("0.0", "0.1", "0.2"))),
        ("dropout=range(0.4,0,-0.1)", Choice(("0.4", "0.3", "0.2", "0.1"))),
        ("hidden=32,64,32", Choice(("32", "64"))),
        ("clip=null,1.0", Choice(("null", "1.0"))),
        ("readout=choice(mean,last)", Choice(("mean", "last"))),
        ("readout=mean,last", Choice(("mean", "last"))),
        ("bidirectional=true,false", Choice(("true", "false"))),
        ("cell=lstm,gru", Choice(("lstm", "gru"))),
        ("cell=glob(*lstm)", Choice(("lstm", "lnlstm", "urlstm", "slstm", "minlstm"))),
        ("optimizer=adam,adamw", Choice(("adam", "adamw"))),
        ("patience='50 updates',20", Choice(("'50 updates'", "20"))),
        ("dataset.normalise=standard,robust", Choice(("standard", "robust"))),
    ],
)
def test_a_range_of_values_is_a_dimension(typed, dimension):
    found = searched(["dataset=digits", typed])
    key = typed.partition("=")[0].strip()
    assert found.space == {key: dimension}
    assert found.fixed == ["dataset=digits"]


@pytest.mark.parametrize(
    ("typed", "fixed"),
    [
        ("hidden=64", "hidden=64"),
        ("name=a,b", "name='a,b'"),  # one name
        ("readout=choice(mean)", "readout=mean"),
        ("hidden=range(8,9)", "hidden=8"),
        ("hidden=interval(8,8)", "hidden=8"),
        ("optimizer.lr=interval(0.001,0.001)", "optimizer.lr=1e-3"),
        ("dropout=range(0,0.1,0.1)", "dropout=0.0"),
        ("clip=1.0,1.0", "clip=1.0"),
        ("cell=glob(urg*)", "cell=urgru"),
        ("seed=3", "seed=3"),
        ("epochs=5", "epochs=5"),
    ],
)
def test_where_one_value_is_left_it_holds_for_all_runs(typed, fixed):
    assert searched([typed]) == ({}, [fixed], [])


def test_the_words_keep_their_order():
    found = searched(["hidden=8,16", "cell=lstm", "dropout=interval(0,0.5)", "dataset=digits", "layers=1,2"])
    assert list(found.space) == ["hidden", "dropout", "layers"]
    assert found.fixed == ["cell=lstm", "dataset=digits"]


def test_a_path_stands_for_the_data_in_it(tmp_path):
    file = tmp_path / "my.csv"
    file.write_text("id,time,a,label\n" + "".join(f"{n // 3},{n % 3},{n},{n // 3 % 2}\n" for n in range(60)))
    found = searched([str(file), "hidden=8,16"])
    assert found.space == {"hidden": Choice(("8", "16"))}
    assert found.fixed == ["dataset=table", f"dataset.path={file}"]
    assert found.notes


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("optimizer.lr=tag(log,interval(0,1))", "cannot be searched: a logarithmic scale begins above 0"),
        ("optimizer.lr=interval(1,0.1)", "goes from a number to a larger one, not from 1.0 to 0.1"),
        ("hidden=range(8,8)", r"'hidden=range\(8,8\)' cannot be searched: there are no such values\."),
        ("hidden=range(0,5,0)", "a range needs finite numbers, and steps other than 0"),
        ("dropout=range(0.0,inf,1)", "a range needs finite numbers"),
        ("dropout=interval(nan,1)", "not from nan to 1.0"),
        ("hidden=range(-3,5,-1)", "there are no such values"),
        ("hidden=interval(8,128.5)", "hidden takes whole numbers only"),
        ("hidden=tag(log,range(8,129,8))", "on a logarithmic scale, whole numbers have no step, got 8"),
        ("dropout=tag(log,range(0.1,0.5,0.1))", r"write tag\(log,interval"),
        ("dropout=range(0,1,1e-9)", "more than 1,000 values are too many"),
        ("hidden=shuffle(range(8,129))", r"leave out shuffle\(\)"),
        ("hidden=sort(32,64,8)", r"leave out sort\(\)"),
        ("hidden=tag(log,sort(range(8,129)))", r"leave out sort\(\)"),
        ("readout=shuffle(mean,last)", r"leave out shuffle\(\)"),
        ("hidden=tag(log,choice(8,64))", "listed have no scale"),
        ("hidden=tag(fine,interval(8,64))", "the only tag is log, not fine"),
        ("readout=glob(m*)", "only names can be given as a pattern"),
        ("cell=glob(x*)", "there are no such values"),
        ("seeds=3", "'seeds=3' repeats one configuration"),
        ("folds=5", "'folds=5' repeats one configuration"),
        ("seed=0,1", "seed cannot be searched: the best one would be luck"),
        ("epochs=10,20", "epochs cannot be searched: runs of different lengths"),
        ("recipe=plain,auto", "recipe cannot be searched"),
        ("dataset.fold=0,1", "dataset.fold cannot be searched: scores on different data"),
        ("dataset.validation=0.1,0.2", "scores on different data"),
        ("dataset=digits,mnist", "dataset cannot be searched: scores on different data"),
        ("hydra.verbose=true,false", "hydra.verbose cannot be searched: it does not concern training"),
        ("hydra/launcher=basic,joblib", "cannot be searched: it does not concern training"),
        ("checkpoint.every=epoch,5m", "cannot be searched: it does not change what is learned"),
        ("hidden", "has no value: write hidden=VALUE"),
        ("lstm", "write cell=lstm"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_words(typed, message):
    with pytest.raises(RnnclfError, match=message):
        searched([typed])


def test_each_key_that_is_not_searched_exists():
    assert {*NOT_SEARCHED, *READING} <= {*known_keys()}


@pytest.mark.parametrize(
    "typed",
    [
        ["cell=basic,lstm", "cell.nonlinearity=tanh,relu"],
        ["cell.nonlinearity=relu", "cell=basic,lstm"],
        ["cell=glob(*)", "cell.nonlinearity=relu"],
    ],
)
def test_an_option_that_some_of_the_searched_cells_lack_is_refused(typed):
    with pytest.raises(ConfigError, match=r"has no option 'nonlinearity': leave out cell\.nonlinearity, or"):
        searched(typed)


def test_an_option_that_all_of_the_searched_components_have_is_searched():
    of_cells = ["cell=lstm,ugrnn", "cell.forget_bias=interval(0,2)"]
    of_training = ["optimizer=adam,sgd", "optimizer.lr=interval(0.001,0.1)"]
    found = searched([*of_cells, *of_training, "schedule=onecycle,cosine", "schedule.warmup=0.2"])
    assert found.fixed == ["schedule.warmup=0.2"]
    assert list(found.space) == ["cell", "cell.forget_bias", "optimizer", "optimizer.lr", "schedule"]


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(RnnclfError, match=r"No cell named 'lstn'\. Did you mean 'lstm'"):
        searched(["cell=lstn,gru", "cell.forget_bias=1,2"])


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["hidden=8,16", "hidden=32"], "hidden is given twice"),
        (["hidden=8,16", "cell.hidden_size=8,16"], "set the same number"),
        (["match_parameters=10k", "hidden=8,16"], "match_parameters chooses hidden"),
    ],
)
def test_two_words_for_one_thing_are_refused(typed, message):
    with pytest.raises(ConfigError, match=message):
        searched(typed)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("dropout=interval(0,1.5)", "dropout must be"),
        ("layers=interval(-1,3)", "layers must be"),
        ("readout=mean,lasst", "readout must be"),
        ("hiden=8,16", "No key named 'hiden'. Did you mean 'hidden'"),
    ],
)
def test_composing_the_edge_points_finds_values_that_cannot_be(typed, message):
    found = searched([typed])
    jobs = [[*found.fixed, *words(point)] for point in edge_points(found.space)]
    with pytest.raises(ConfigError, match=message):
        list(map(load_config, jobs))
