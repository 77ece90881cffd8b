"""Checkpoints: what was saved comes back, and nothing but CheckpointError comes of other files."""

import contextlib
import errno
import json
import math
import os
import pickle
import struct

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnclf.cells import CELLS
from rnnclf.checkpoint import FORMAT, HEADER_LIMIT, fill, load, read_header, save
from rnnclf.errors import CheckpointError, OutputError
from rnnclf.model import SequenceClassifier
from tests.containers import HEADER, Opens, container


def classifier(name="gru", seed=0, hidden=3):
    torch.manual_seed(seed)
    return SequenceClassifier(CELLS[name](hidden_size=hidden), input_size=2, classes=2)


def tensors_of(model):
    return {f"model.{name}": tensor for name, tensor in model.state_dict().items()}


@pytest.fixture
def path(tmp_path):
    """A good checkpoint."""
    path = tmp_path / "best.safetensors"
    save(path, HEADER, tensors_of(classifier()))
    return path


def refused(path, reader=load):
    """The message of the CheckpointError that reading `path` raises; it names the file."""
    with pytest.raises(CheckpointError) as caught:
        reader(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


# Round trips


@pytest.mark.parametrize("name", CELLS.names())
def test_saved_and_loaded_weights_give_equal_logits(name, tmp_path):
    model = classifier(name)
    save(tmp_path / "it", HEADER, tensors_of(model))
    saved = load(tmp_path / "it")
    with torch.device("meta"):
        twin = classifier(name, seed=1)
    fill(twin, saved)
    x_BTI = torch.randn(4, 5, 2)
    assert torch.equal(twin(x_BTI), model(x_BTI))
    assert twin.state_dict().keys() == model.state_dict().keys()


def test_header_comes_back(path):
    assert load(path).header == read_header(path) == {"format": FORMAT, **HEADER}
    assert load(path).path == path


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, 4).t(),
        torch.tensor(7),
        torch.zeros(0, 2),
        torch.get_rng_state(),
        torch.tensor([math.nan, math.inf, -0.0]),
        torch.randn(2, dtype=torch.float64, requires_grad=True),
    ],
    ids=["transposed", "scalar", "empty", "bytes", "not finite", "with gradient"],
)
def test_tensors_come_back_as_they_were(tensor, tmp_path):
    save(tmp_path / "it", HEADER, {"it": tensor})
    back = load(tmp_path / "it").tensors["it"]
    assert back.dtype == tensor.dtype
    assert torch.equal(back.nan_to_num(nan=5), tensor.nan_to_num(nan=5))


def test_model_tensors_are_those_of_the_model_alone(tmp_path):
    save(
        tmp_path / "it", HEADER, {"model.head.bias": torch.ones(2), "optimizer.step.head.bias": torch.ones(1)}
    )
    assert list(load(tmp_path / "it").model_tensors()) == ["head.bias"]


def test_saving_again_replaces_the_file(path):
    save(path, {**HEADER, "epoch": 4}, {"it": torch.ones(1)})
    saved = load(path)
    assert saved.header["epoch"] == 4
    assert list(saved.tensors) == ["it"]
    assert list(path.parent.iterdir()) == [path]


# Failing writes


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_failing_write_leaves_the_old_file_whole(function, path, monkeypatch):
    before = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(os, function, no_space)
        with pytest.raises(OutputError, match="No space left on device") as caught:
            save(path, HEADER, tensors_of(classifier(seed=1)))
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_failing_first_write_leaves_nothing(function, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(os, function, no_space)
        with pytest.raises(OutputError):
            save(tmp_path / "it", HEADER, {"it": torch.ones(1)})
    assert list(tmp_path.iterdir()) == []


def test_content_is_on_the_disk_before_the_old_file_is_replaced(path, monkeypatch):
    calls, really = [], {name: getattr(os, name) for name in ("fsync", "replace")}
    for name in really:
        monkeypatch.setattr(os, name, lambda *args, name=name: (calls.append(name), really[name](*args)))
    save(path, HEADER, {"it": torch.ones(1)})
    assert calls[:2] == ["fsync", "replace"]


def test_folder_that_is_not_there_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="No such file or directory"):
        save(tmp_path / "nowhere" / "it", HEADER, {"it": torch.ones(1)})


def test_folder_in_the_place_of_the_file_is_an_output_error(tmp_path):
    (tmp_path / "it").mkdir()
    with pytest.raises(OutputError, match="directory"):
        save(tmp_path / "it", HEADER, {"it": torch.ones(1)})
    assert [child.name for child in tmp_path.iterdir()] == ["it"]


def test_header_that_is_no_json_leaves_the_old_file_whole(path):
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON compliant"):
        save(path, {**HEADER, "loss": math.nan}, {})
    assert path.read_bytes() == before


def with_metadata(text):
    return container(json.dumps({"__metadata__": {"rnnclf": text}}).encode())


DEEP = "[" * 100_000
STRANGERS = {
    "empty": b"",
    "one byte": b"\x00",
    "text": b"epoch,train_loss\n1,0.5\n" * 20,
    "random bytes": bytes(torch.randint(256, (500,), generator=torch.Generator().manual_seed(0)).tolist()),
    "zeros": bytes(500),
    "pickle": pickle.dumps({"weight": [1.0, 2.0]}),
    "length of 2**60": struct.pack("<Q", 2**60) + b"{}",
    "length above the limit": struct.pack("<Q", HEADER_LIMIT + 1) + b"{}",
    "length beyond the end": struct.pack("<Q", 10_000) + b'{"__metadata__":{}}',
    "header no JSON": container(b"{nonsense"),
    "header no UTF-8": container(b'{"\xff\xfe": 1}'),
    "header a list": container(b"[1, 2]"),
    "header a number": container(b"17"),
    "metadata a list": container(b'{"__metadata__": [1]}'),
    "metadata null": container(b'{"__metadata__": null}'),
    "somebody else's": safetensors.torch.save({"weight": torch.ones(2)}),
    "somebody else's with metadata": safetensors.torch.save({"weight": torch.ones(2)}, {"format": "pt"}),
    "deep header": container(DEEP.encode()),
    "deep metadata": container(b'{"__metadata__": ' + DEEP.encode()),
    "deep text": with_metadata(DEEP),
    "text no JSON": with_metadata("epoch 3"),
    "text empty": with_metadata(""),
    "text a list": with_metadata("[1]"),
    "text a number": with_metadata("1"),
    "text a string": with_metadata('"format"'),
    "text null": with_metadata("null"),
    "text without format": with_metadata(json.dumps(HEADER)),
    "huge number": with_metadata('{"format": ' + "1" * 5000 + "}"),
}


@pytest.mark.parametrize("reader", [load, read_header])
@pytest.mark.parametrize("stranger", STRANGERS)
def test_other_files_are_refused(stranger, reader, tmp_path):
    path = tmp_path / "it.safetensors"
    path.write_bytes(STRANGERS[stranger])
    assert "is not a checkpoint of rnnclf" in refused(path, reader)


@pytest.mark.parametrize("reader", [load, read_header])
def test_torch_files_are_refused(reader, tmp_path):
    torch.save(classifier().state_dict(), tmp_path / "model.pt")
    assert "is not a checkpoint of rnnclf" in refused(tmp_path / "model.pt", reader)


@pytest.mark.parametrize("reader", [load, read_header])
def test_reading_a_pickle_runs_none_of_it(reader, tmp_path):
    (tmp_path / "it").write_bytes(pickle.dumps(Opens(tmp_path / "opened")))
    refused(tmp_path / "it", reader)
    assert not (tmp_path / "opened").exists()
    pickle.loads((tmp_path / "it").read_bytes())
    assert (tmp_path / "opened").exists()  # it would have been


@pytest.mark.parametrize("reader", [load, read_header])
def test_missing_file_and_folder_are_refused(reader, tmp_path):
    assert "No such file" in refused(tmp_path / "nowhere", reader)
    assert "Is a directory" in refused(tmp_path, reader)


@pytest.mark.parametrize("version", [0, 1, 2, FORMAT + 1, 1.5, "1", None, [], {}, -(10**30)])
@pytest.mark.parametrize("reader", [load, read_header])
def test_other_formats_are_refused_by_their_number(reader, version, tmp_path):
    (tmp_path / "it").write_bytes(with_metadata(json.dumps({**HEADER, "format": version})))
    message = refused(tmp_path / "it", reader)
    assert f"has checkpoint format {version!r}; this version of rnnclf reads format {FORMAT}" in message


@pytest.mark.parametrize("key", HEADER)
@pytest.mark.parametrize("wrong", ["missing", None, 1.5])
def test_header_without_its_keys_is_refused(key, wrong, tmp_path):
    header = {k: v for k, v in HEADER.items() if k != key} | ({} if wrong == "missing" else {key: wrong})
    save(tmp_path / "it", header, {})
    assert f"no valid '{key}'" in refused(tmp_path / "it")


# Damaged files


def test_truncated_files_are_refused(path):
    good = path.read_bytes()
    for length in range(0, len(good), 64):
        path.write_bytes(good[:length])
        refused(path)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """The place for damaged files, and the bytes of a good one."""
    path = tmp_path_factory.mktemp("damaged") / "it"
    save(path, HEADER, tensors_of(classifier()))
    return path, path.read_bytes()


def read_and_filled(path):
    """Reads a checkpoint of the small classifier and classifies with it."""
    with torch.device("meta"):
        model = classifier()
    fill(model, load(path))
    return model(torch.zeros(1, 2, 2))


@pytest.mark.long
@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_flipped_bytes_give_a_good_result_or_a_checkpoint_error(damaged, data):
    path, good = damaged
    changed = bytearray(good)
    for place in data.draw(st.lists(st.integers(0, len(good) - 1), min_size=1, max_size=4), label="places"):
        changed[place] = data.draw(st.integers(0, 255), label="byte")
    path.write_bytes(changed)
    with contextlib.suppress(CheckpointError):
        assert read_and_filled(path).shape == (1, 2)


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_cut_files_are_refused(damaged, data):
    path, good = damaged
    start = data.draw(st.integers(0, len(good) - 1), label="start")
    end = data.draw(st.integers(start + 1, len(good)), label="end")
    path.write_bytes(good[:start] + good[end:])
    refused(path)


@pytest.mark.long
@settings(deadline=None, max_examples=200)
@given(content=st.binary(max_size=200), length=st.integers(0, 300))
def test_random_bytes_behind_a_length_are_refused(damaged, content, length):
    path, _ = damaged
    path.write_bytes(struct.pack("<Q", length) + content)
    refused(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.long
@settings(deadline=None, max_examples=100)
@given(value=json_values, place=st.sampled_from(["header", "metadata", "text", "text in metadata"]))
def test_any_json_is_refused(damaged, value, place):
    path, _ = damaged
    header = {
        "header": value,
        "metadata": {"__metadata__": value},
        "text": {"__metadata__": {"rnnclf": value}},
        "text in metadata": {"__metadata__": {"rnnclf": json.dumps(value)}},
    }[place]
    path.write_bytes(container(json.dumps(header).encode()))
    refused(path)


# Weights that do not fit


def meta_classifier(**options):
    with torch.device("meta"):
        return classifier(**options)


def changed_tensors(path, change):
    """Saves the good checkpoint once more, with its tensors changed."""
    tensors = tensors_of(classifier())
    change(tensors)
    save(path, HEADER, tensors)
    return load(path)


def test_missing_tensor_is_refused_in_words(path):
    saved = changed_tensors(path, lambda tensors: tensors.pop("model.head.bias"))
    with pytest.raises(CheckpointError) as caught:
        fill(meta_classifier(), saved)
    assert str(caught.value) == (
        f"{path} does not match its own configuration: head.bias should be (2,) float32, but is missing."
    )


def test_extra_tensor_is_refused_in_words(path):
    saved = changed_tensors(path, lambda tensors: tensors.update({"model.extra": torch.ones(2, 3)}))
    with pytest.raises(CheckpointError) as caught:
        fill(meta_classifier(), saved)
    assert str(caught.value) == (
        f"{path} does not match its own configuration: the file has extra, which the model has not."
    )


@pytest.mark.parametrize("shape", [(3,), (1, 2), (), (0,)])
def test_wrong_shape_is_refused_in_words(shape, path):
    saved = changed_tensors(path, lambda tensors: tensors.update({"model.head.bias": torch.ones(shape)}))
    with pytest.raises(CheckpointError) as caught:
        fill(meta_classifier(), saved)
    assert f"head.bias should be (2,) float32, but the file has {shape} float32." in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.float64, torch.bfloat16])
def test_wrong_type_is_refused_in_words(dtype, path):
    wrong = {"model.head.bias": torch.ones(2, dtype=dtype)}
    saved = changed_tensors(path, lambda tensors: tensors.update(wrong))
    with pytest.raises(CheckpointError, match=r"head\.bias should be"):
        fill(meta_classifier(), saved)


def test_checkpoint_of_another_cell_is_refused(path):
    with pytest.raises(CheckpointError, match="does not match its own configuration"):
        fill(meta_classifier(name="lstm"), load(path))


def test_shapes_are_compared_before_a_large_model_takes_memory(path):
    with pytest.raises(CheckpointError, match="should be"):
        fill(meta_classifier(hidden=1_000_000), load(path))
