"""Channels of names: read, fitted on the training split, prepared, augmented, trained on and evaluated."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from rnnclf import checkpoint
from rnnclf.augment import SeriesAugment
from rnnclf.cells import CELLS
from rnnclf.data.arrays import Arrays
from rnnclf.data.categories import CodedFeatures, unseen
from rnnclf.data.preparation import Preparation, fitted
from rnnclf.data.recordings import Recordings
from rnnclf.data.survey import digests
from rnnclf.data.table import Table
from rnnclf.errors import CheckpointError, ConfigError, DataError
from rnnclf.hydra_app import load_config
from rnnclf.model import SequenceClassifier
from rnnclf.stack import Stack
from rnnclf.training.eligibility import step_obstacle
from rnnclf.workflows.evaluate import evaluate
from rnnclf.workflows.train import train
from tests.conftest import Cli
from tests.data.tables import parquet, read

VISITS = """id,time,page,x,label
a,0,home,1.5,stay
a,1,shop,2.5,stay
b,0,shop,3.5,leave
b,1,,4.5,leave
b,2,cart,5.5,leave
"""


def names_of(found: Recordings, channel: str) -> list[str | None]:
    """The names in a channel, step by step."""
    codes = found.values_SC[:, found.channels.index(channel)].tolist()
    return [None if code != code else found.categories[channel][int(code)] for code in codes]


# Reading


def test_words_in_a_table_are_a_channel_of_names():
    found = read(VISITS)
    assert found.channels == ("page", "x")
    assert found.categories == {"page": ("cart", "home", "shop")}
    assert names_of(found, "page") == ["home", "shop", "shop", None, "cart"]
    assert "my.csv: page holds names rather than numbers." in found.notes
    assert names_of(read(VISITS, "again.csv"), "page") == names_of(found, "page")  # from the cache


def test_codes_do_not_depend_on_the_order_of_rows_or_the_kind_of_file():
    found = read(VISITS)
    header, *rows = VISITS.splitlines()
    other = read("\n".join([header, *reversed(rows)]), "reversed.csv")
    columnar = read(parquet(pl.read_csv(VISITS.encode())), "my.parquet")
    for each in (other, columnar):
        np.testing.assert_array_equal(each.values_SC, found.values_SC)
        assert each.categories == found.categories


def test_a_channel_of_numbers_can_be_declared_one_of_names():
    content = "id,time,page,x,label\na,0,10,1,u\na,1,9.0,2,u\nb,0,10,3,v\nb,1,nan,4,v\n"
    found = read(content, categorical=["page"])
    assert found.categories == {"page": ("9", "10")}
    assert names_of(found, "page") == ["10", "9", "10", None]
    assert read(content, channels=["page"], categorical=["page"]).channels == ("page",)
    with pytest.raises(ConfigError, match=r"has no channel 'pag'\. Did you mean 'page'\?"):
        read(content, categorical=["pag"])
    with pytest.raises(ConfigError, match=r"has no channel 'page'"):
        read(content, channels=["x"], categorical=["page"])


def test_free_text_ids_and_what_is_the_same_in_a_sequence_are_no_names():
    rows = 60
    frame = pl.DataFrame(
        {
            "id": [n // 6 for n in range(rows)],
            "time": [n % 6 for n in range(rows)],
            "comment": [f"text {n}" for n in range(rows)],
            "wearer": [f"w{n // 6}" for n in range(rows)],
            "site": ["north"] * rows,
            "page": [f"p{n % 5}" for n in range(rows)],
            "x": np.arange(rows) % 7 + 0.5,
            "label": ["ab"[n // 6 % 2] for n in range(rows)],
        }
    )
    found = read(frame.write_csv())
    assert found.channels == ("page", "x")
    assert "ignored columns of text or row numbers: comment, wearer, site." in " ".join(found.notes)
    with pytest.raises(DataError, match=r"line 2, column 'comment' has a name of more than 100 bytes"):
        read(frame.with_columns(comment=pl.lit("x" * 101)).write_csv(), "long.csv", channels=["comment", "x"])


def test_letters_in_a_wide_table_are_the_steps_of_a_channel_of_names():
    strands = ["ACGT", "CCGT", "TAGC", "AC-N"]
    header = ",".join(["label", *(f"p{t}" for t in range(4))])
    rows = [f"{'ab'[n % 2]},{','.join(strand)}" for n, strand in enumerate(strands)]
    found = read("\n".join([header, *rows]))
    assert found.categories == {"value": tuple("-ACGNT")}
    assert names_of(found, "value") == list("".join(strands))
    digits = read("\n".join([header, "a,1,2,1,2", "b,2,1,2,1"]), "digits.csv", categorical=["value"])
    assert digits.categories == {"value": ("1", "2")}
    mixed = "label,page_0,page_1,x_0,x_1\na,home,shop,1,2\nb,shop,home,3,4\n"
    found = read(mixed, "mixed.csv")
    assert found.channels == ("page", "x")
    assert found.values_SC.tolist() == [[0, 1], [1, 2], [1, 3], [0, 4]]
    assert found.categories == {"page": ("home", "shop")}


def test_letters_that_are_not_in_columns_are_refused_with_the_way_out(tmp_path):
    rows = [f"{'ab'[n % 2]},{strand}" for n, strand in enumerate(["ACGTACGTAC", "CCGTTTTTAC", "TAGCAACGTA"])]
    for name in ("sequence", "dna"):
        with pytest.raises(DataError, match=f"To use '{name}', write each of its letters in a column of"):
            read("\n".join([f"label,{name}", *rows]), label="label")
    np.savez(tmp_path / "my.npz", x=np.array([["A", "C"], ["G", "T"]]), y=[0, 1])
    with pytest.raises(DataError, match=r"holds text; .* Names and letters are read from tables"):
        Arrays(path=str(tmp_path / "my.npz")).read()


def test_a_sequence_is_the_same_whatever_else_is_in_its_file():
    whole = read(VISITS)
    part = read(
        "\n".join([*VISITS.splitlines()[:1], *VISITS.splitlines()[3:]]), "part.csv", channels=["page", "x"]
    )
    assert digests(part).digests_N[0] == digests(whole).digests_N[1]
    renamed = read(VISITS.replace("cart", "exit"), "renamed.csv")
    assert digests(renamed).digests_N[1] != digests(whole).digests_N[1]


# Preparation


def prepared(found: Recordings, known: Preparation) -> np.ndarray:
    """The features of the last sequence."""
    start, length = int(found.starts_N[-1]), int(found.lengths_N[-1])
    x_BTC = torch.from_numpy(np.array(found.values_SC[start : start + length])).unsqueeze(0)
    return known.reading(found)(x_BTC, torch.tensor([length]), None)[0].numpy()


def test_the_vocabulary_is_that_of_the_training_split():
    found = read(VISITS)
    known = fitted(found, np.array([0]), "mask", "standard")
    assert known.vocabularies == {"page": ("home", "shop")}
    assert known.coded == CodedFeatures((2,))
    features = prepared(found, known)
    assert known.input_size == features.shape[1] == 4
    # leave: shop, missing, cart (unseen); x is 2 and 0.5 away from the first
    assert features[:, 3].tolist() == [2, 0, 3]
    assert features[:, 0].tolist() == [3, 5, 7]
    assert unseen(found, known.vocabularies) == [
        "Channel 'page' has values at 1 of 5 steps that do not occur in the training split ('cart')."
    ]
    assert unseen(found, fitted(found, np.array([0, 1]), "mask", "none").vocabularies) == []
    with pytest.raises(DataError, match="'page' has no values in the training split"):
        fitted(read(VISITS.replace("home", "").replace("shop", ""), "b.csv"), np.array([0]), "mask", "none")


@pytest.mark.parametrize("normalise", ["none", "standard", "minmax", "robust"])
def test_names_are_not_normalised(normalise):
    found = read(VISITS)
    known = fitted(found, np.array([0, 1]), "mask", normalise)
    assert (known.shift_C[0], known.scale_C[0]) == (0, 1)
    assert prepared(found, known)[:, 3].tolist() == [3, 0, 1]


def test_interpolation_takes_the_nearest_name():
    content = VISITS.replace("b,2,cart,5.5", "b,2,,5.5,leave\nb,3,,1,leave\nb,4,cart,1")
    found = read(content + "b,5,,1,leave\n", missing="interpolate")
    known = fitted(found, np.array([0, 1]), "interpolate", "none")
    names = ["", *known.vocabularies["page"]]
    assert [names[int(code)] for code in prepared(found, known)[:, -1]] == [
        *("shop", "shop", "shop", "cart", "cart", "cart")
    ]


def test_patches_keep_the_names_of_each_step():
    known = replace(fitted(read(VISITS), np.array([0, 1]), "mask", "none"), patch=2)
    features = prepared(read(VISITS), known)
    assert known.input_size == features.shape[1] == 3 * 2 + 2
    assert features[:, -2:].tolist() == [[3, 0], [1, 1]]


def test_a_vocabulary_survives_the_checkpoint_and_an_odd_one_is_refused():
    known = fitted(read(VISITS), np.array([0, 1]), "mask", "none")
    plain = json.loads(json.dumps(known.to_plain()))
    assert Preparation.from_plain(plain) == known
    for odd in ([["a", "a"], None], [[], None], [["a"]]):
        with pytest.raises(ConfigError, match="vocabular"):
            Preparation.from_plain({**plain, "vocabulary_C": odd})
    earlier = {key: plain[key] for key in ("channels", "missing", "shift_C", "scale_C", "interval")}
    assert Preparation.from_plain(earlier).coded is None


# Augmentation and the model


def test_augmentation_changes_no_name_but_to_missing():
    torch.manual_seed(0)
    codes_BTK = torch.randint(1, 6, (4, 30, 2)).float()
    x_BTI = torch.cat((torch.randn(4, 30, 3), codes_BTK), dim=-1)
    augment = SeriesAugment(jitter=0.5, scale=0.5, time_warp=0.5, crop=0.5, time_mask=0.3, channel_drop=0.3)
    changed, lengths_B = augment(x_BTI, None, codes=2)
    assert lengths_B is not None
    assert set(changed[..., 3:].unique().tolist()) <= {0, 1, 2, 3, 4, 5}
    assert (changed[..., 3:] == 0).any()
    noise, _ = replace(augment, time_warp=0, crop=1, time_mask=0, channel_drop=0)(x_BTI, None, codes=2)
    assert torch.equal(noise[..., 3:], codes_BTK)
    assert not torch.equal(noise[..., :3], x_BTI[..., :3])
    alone, _ = augment(codes_BTK, None, values=0, codes=2)
    assert alone.shape[2] == 2
    assert (alone > 0).any()


def classifier(*sizes: int, inputs: int = 1, patch: int = 1) -> SequenceClassifier:
    coded = CodedFeatures(sizes, patch)
    torch.manual_seed(0)
    return SequenceClassifier(
        CELLS["basic"](hidden_size=3), inputs + coded.number, 2, Stack(engine="loop"), coded
    )


def test_few_names_are_ones_in_their_places_and_many_are_learned():
    model = classifier(3, 20)
    assert model.names is not None
    assert model.names.widths == [3, 9]
    x = torch.tensor([[[0.5, 0, 0], [0.5, 2, 7], [0.5, 4, 21]]])
    found = model.names(x)[0]
    assert found[:, :4].tolist() == [
        [0.5, 0, 0, 0],
        [0.5, 0, 1, 0],
        pytest.approx([0.5, 1 / 3, 1 / 3, 1 / 3]),
    ]
    weight = model.names.learned["1"]
    expected = torch.stack((torch.zeros(9), weight[6], weight.mean(dim=0)))
    torch.testing.assert_close(found[:, 4:], expected)
    found.sum().backward()
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0


def test_patches_share_the_vectors_of_a_channel():
    model = classifier(17, inputs=0, patch=2)
    assert model.names is not None
    first, second = model.names(torch.tensor([[[5.0, 5.0]]]))[0, 0].chunk(2)
    assert torch.equal(first, second)


def test_padding_does_not_matter():
    model, x = classifier(3, 20).eval(), torch.tensor([[[0.5, 1, 2], [0.5, 2, 7], [0.5, 3, 9]]])
    short = model(x[:, :2], torch.tensor([2]))
    torch.testing.assert_close(model(x, torch.tensor([2])), short)


# From the command line


def visits(path: Path, sequences: int = 40, extra: str = "") -> Path:
    """Sequences of 8 pages: those of class 'buy' visit the cart, others do not; x says nothing."""
    random = np.random.default_rng(0)
    rows = ["id,time,page,x,label"]
    for n in range(sequences):
        pages = random.choice(["home", "shop", "help"], 8)
        if n % 2:
            pages[random.integers(8)] = "cart"
        if n == sequences - 1 and extra:
            pages[0] = extra
        rows += [
            f"{n},{t},{page},{random.normal():.3f},{['go', 'buy'][n % 2]}" for t, page in enumerate(pages)
        ]
    path.write_text("\n".join(rows))
    return path


FAST = (
    "hidden=8",
    "layers=1",
    "threads=1",
    "epochs=20",
    "batch_size=8",
    "optimizer.lr=0.03",
    "final_fit=false",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("names")
    path = visits(folder / "visits.csv")
    words = [f"dataset.path={path}", "dataset=table", "augment=series", "readout=max"]
    train(load_config([*words, *FAST]), folder / "run")
    return folder / "run"


@pytest.mark.long
def test_what_names_tell_is_learned(run):
    saved = checkpoint.load(run / "best.safetensors")
    assert saved.preparation["vocabulary_C"] == [["cart", "help", "home", "shop"], None]
    assert evaluate(run)[0].evaluation.score.accuracy > 0.9


@pytest.mark.long
def test_unseen_names_are_told_at_evaluation(run, tmp_path):
    other = visits(tmp_path / "other.csv", 20, "blog")
    found = evaluate(run, [f"dataset.path={other}"])[0]
    assert any("1 of 160 steps that do not occur in the training split ('blog')" in n for n in found.notes)
    digits = tmp_path / "digits.csv"
    pages = {"home": "1", "shop": "2", "help": "3", "cart": "4"}
    text = other.read_text().replace("blog", "5")
    for name, digit in pages.items():
        text = text.replace(name, digit)
    digits.write_text(text)
    found = evaluate(run, [f"dataset.path={digits}"])[0]
    assert any("160 of 160 steps" in note for note in found.notes)


@pytest.mark.long
def test_sequences_that_were_trained_on_are_recognised_in_a_part_of_the_file(run, tmp_path):
    part = tmp_path / "part.csv"
    part.write_text("\n".join((run.parent / "visits.csv").read_text().splitlines()[: 1 + 8 * 10]))
    found = evaluate(run, [f"dataset.path={part}"])[0]
    assert found.trained_on is not None
    assert 3 <= found.trained_on <= 10


@pytest.mark.long
def test_names_and_numbers_are_not_confused(run, tmp_path):
    np.savez(tmp_path / "my.npz", x=np.zeros((4, 3, 2)), y=["go", "buy"] * 2, channels=["page", "x"])
    with pytest.raises(CheckpointError, match=r"trained on names in channel 'page'; these data have numbers"):
        evaluate(run, ["dataset=arrays", f"dataset.path={tmp_path / 'my.npz'}"])


@pytest.mark.long
def test_check_and_inspect_show_names(run, cli: Cli):
    shown = cli("data", "check", run.parent / "visits.csv").stdout
    assert "page: 4 names: cart, help, home, shop" in shown
    assert "page: 4 names" in cli("inspect", run).stdout


@pytest.mark.long
def test_the_compiled_step_says_that_it_has_no_names(run):
    source = Table(path=str(run.parent / "visits.csv"))
    splits = source.load()
    model = SequenceClassifier(
        CELLS["basic"](hidden_size=3), splits.train.input_size, 2, coded=splits.train.coded
    )
    assert step_obstacle(model, splits.train) == "channels of names are not part of whole steps"
