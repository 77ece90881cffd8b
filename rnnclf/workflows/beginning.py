"""The weights with which training begins where they are those of another model: which of them fit where.

Shapes: I features of a step, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from rnnclf import checkpoint
from rnnclf.cells.module import CellModule
from rnnclf.config import Config
from rnnclf.data import Learned
from rnnclf.data.preparation import Preparation
from rnnclf.data.recordings import numbered
from rnnclf.errors import CheckpointError, ConfigError
from rnnclf.model import ONE_HOT, RecurrentLayer, SequenceClassifier
from rnnclf.workflows.loading import build_model, grid_for, load_model
from rnnclf.workflows.pretrained import OF_STEPS, OF_VALUES, changed, misfit, word_of

SHOWN = 5  # names in a sentence


HEAD = ("head.weight", "head.bias")
Places = tuple[list[int], list[int]]
"""The places of what two models have in common: those in the new one, and those in the trained one."""


class Part(NamedTuple):
    """Weights to be copied: of the weight with this name, what is at `places` along `dim`."""

    name: str
    dim: int
    places: list[int]
    values: Tensor


@dataclass(frozen=True)
class Beginning:
    """What a new classifier takes over from a trained one; by default nothing.

    notes: what is taken over and what is new, as sentences for the user.
    """

    parts: tuple[Part, ...] = ()
    notes: tuple[str, ...] = ()

    def filled(self, model: SequenceClassifier) -> SequenceClassifier:
        """The model, on the CPU, with these weights in place of those that were drawn."""
        weights = model.state_dict()
        with torch.no_grad():
            for name, dim, places, values in self.parts:
                if values.ndim == 0:
                    weights[name].copy_(values)
                else:
                    weights[name].index_copy_(dim, torch.tensor(places, dtype=torch.int64), values)
        return model


@dataclass(frozen=True)
class _Match:
    """Which channels of the trained model are those of these data."""

    then: Preparation
    now: Preparation

    @property
    def nameless(self) -> str:
        """Whose channels have numbers for names: '' if it is those of both, or of none."""
        then, now = (p.channels == numbered(len(p.channels)) for p in (self.then, self.now))
        return "" if then == now else "its own" if then else "those of these data"

    def called(self, channel: str) -> str | None:
        """The channel of these data that is the given one of the trained model; None if there is none."""
        here: str | None = channel
        if self.nameless:
            here = dict(zip(self.then.channels, self.now.channels, strict=False)).get(channel)
        kinds = [name in known.vocabularies for name, known in ((channel, self.then), (here, self.now))]
        return here if here in self.now.channels and kinds[0] == kinds[1] else None

    def kept(self) -> list[str]:
        return [here for name in self.then.channels if (here := self.called(name)) is not None]

    def new(self) -> list[str]:
        kept = self.kept()
        return [name for name in self.now.channels if name not in kept]

    def gone(self) -> list[str]:
        return [name for name in self.then.channels if self.called(name) is None]

    def with_new_names(self) -> list[str]:
        """The channels of names of which some are unknown to the trained model."""
        known = {self.called(name): set(names) for name, names in self.then.vocabularies.items()}
        return [
            name for name, names in self.now.vocabularies.items() if set(names) - known.get(name, {*names})
        ]

    @property
    def new_masks(self) -> bool:
        """Whether these data tell which values are missing, and those of the trained model did not."""
        return self.now.missing == "mask" != self.then.missing


def beginning(config: Config, learned: Learned) -> Beginning:
    """What a classifier of these data takes over from the one in `init`; nothing without `init`.

    Cells, norms and readouts are taken over as they are. The input weights are those of the channels with the
    same name, and the rows of the head those of the classes with the same name; the others stay as they were
    drawn. Raises CheckpointError or ConfigError.
    """
    if config.init is None:
        return Beginning()
    file = Path(config.init)
    if checkpoint.describe(file).sha256 != config.init_sha256:
        raise CheckpointError(changed(file))
    trained = load_model(file, [])
    old, prepared = trained.model, learned.preparation
    grid = grid_for(config, learned)
    with torch.device("meta"):
        new = build_model(config, prepared.input_size, len(learned.classes), prepared.coded, grid)
    match = _Match(trained.learned.preparation, prepared)
    features = _places(_features(old, match.then, match.called), _features(new, prepared, str))
    classes = _places(trained.learned.classes, learned.classes)
    _refuse_other_grid(old, new, config, features)
    parts, misfits = _parts(old, new, features, classes, _names(old, new, match))
    if misfits:
        raise _misfit(old, new, config, trained.config)
    _refuse_frozen(config, match)
    notes = [
        f"Training begins with the weights of {file}: {_model(trained.config)}, trained on"
        f" {trained.config.dataset.title()}.",
        *_about_channels(match),
        _about_head(trained.learned.classes, learned.classes),
        _about_preparation(config),
        *_about_freezing(config, new),
    ]
    return Beginning(tuple(parts), tuple(notes))


def _places(then: Sequence[Hashable], now: Sequence[Hashable]) -> Places:
    """The places of what is in both."""
    place_of = {key: place for place, key in enumerate(then)}
    both = [(place, place_of[key]) for place, key in enumerate(now) if key in place_of]
    return [new for new, _ in both], [old for _, old in both]


def _features(
    model: SequenceClassifier, preparation: Preparation, called: Callable[[str], str | None]
) -> list[Hashable]:
    """A key for each feature of the first layer, the same for those that mean the same.

    called: the name by which a channel is known in the keys; None if there is no such channel any more.
    """
    known, patch = preparation.vocabularies, range(preparation.patch)
    kinds = range(3 if preparation.missing == "mask" else 1)
    numbers = [name for name in preparation.channels if name not in known]
    found: list[Hashable] = [
        ("number", called(name) or ("gone", name), kind, step)
        for kind in kinds
        for step in patch
        for name in numbers
    ]
    widths = [] if model.names is None else model.names.widths
    for (name, names), width in zip(known.items(), widths, strict=True):
        each = names if len(names) <= ONE_HOT else [(width, place) for place in range(width)]
        found += [("name", called(name) or ("gone", name), part, step) for step in patch for part in each]
    return found


def _names(old: SequenceClassifier, new: SequenceClassifier, match: _Match) -> dict[str, tuple[str, Places]]:
    """For each learned table of names of the new model that of the old one, and the places of the names."""
    if old.names is None or new.names is None:
        return {}
    found: dict[str, tuple[str, Places]] = {}
    channels = list(match.now.vocabularies)
    for place, (channel, then) in enumerate(match.then.vocabularies.items()):
        here = match.called(channel)
        if here is None or here not in channels:
            continue
        tables = [f"names.learned.{number}" for number in (channels.index(here), place)]
        both = (tables[0], new), (tables[1], old)
        shapes = [model.state_dict()[name].shape for name, model in both if name in model.state_dict()]
        if len(shapes) == 2 and shapes[0][1] == shapes[1][1]:
            found[tables[0]] = tables[1], _places(then, match.now.vocabularies[here])
    return found


def _parts(
    old: SequenceClassifier,
    new: SequenceClassifier,
    features: Places,
    classes: Places,
    names: Mapping[str, tuple[str, Places]],
) -> tuple[list[Part], set[str]]:
    """What is copied of each weight of the new model, and the names of the weights that do not fit."""
    weights, inputs = old.state_dict(), _input_weights(new)
    parts, misfits = [], {name for name in weights.keys() - new.state_dict().keys() if not _is_table(name)}
    for name, weight in new.state_dict().items():
        if _is_table(name):
            if name in names:
                source, (places, rows) = names[name]
                parts.append(Part(name, 0, places, weights[source][rows]))
            continue
        dim, shape = (weight.ndim - 1 if name in inputs else 0), list(weight.shape)
        places, rows = features if name in inputs else classes if name in HEAD else ([], [])
        values = weights.get(name)
        if values is None or values.ndim != weight.ndim:
            misfits.add(name)
            continue
        if name in inputs or name in HEAD:
            shape[dim], values = len(rows), values.index_select(dim, torch.tensor(rows, dtype=torch.int64))
        else:
            places = list(range(len(values) if values.ndim else 0))
        if list(values.shape) != shape:
            misfits.add(name)
        parts.append(Part(name, dim, places, values))
    return parts, misfits


def _is_table(name: str) -> bool:
    """Whether these are the learned vectors of names, of which there may be others in other data."""
    return name.startswith("names.")


def _input_weights(model: SequenceClassifier) -> set[str]:
    """The weights whose last dimension is that of the features: those that change with their number."""
    found: set[str] = set()
    if model.stack.axes == "alternating":  # these see a place of the grid, which must be the same
        return found
    for name, module in _first(model).items():
        wider = module.cell.parameters(module.input_size + 1)
        for weight, spec in module.cell.parameters(module.input_size).items():
            if weight in wider and wider[weight].shape[-1:] != spec.shape[-1:]:
                found.add(f"layers.0.directions.{name}.{weight}")
    return found


def _first(model: SequenceClassifier) -> dict[str, CellModule]:
    """The cells of the first layer by the names of their directions."""
    layer = model.layers[0]
    assert isinstance(layer, RecurrentLayer)
    return {name: module for name, module in layer.directions.items() if isinstance(module, CellModule)}


def _misfit(old: SequenceClassifier, new: SequenceClassifier, config: Config, there: Config) -> ConfigError:
    """Why the weights of the trained model do not fit: an option of the cell, or the number of inputs."""
    for option in fields(config.cell):
        now, then = getattr(config.cell, option.name), getattr(there.cell, option.name)
        if now != then:
            return misfit(f"cell.{option.name}", now, then, str(config.init))
    sizes = [next(iter(_first(model).values())).input_size for model in (new, old)]
    return ConfigError(
        f"cell={config.cell.name} has other weights for {sizes[0]} inputs than for {sizes[1]}, with which"
        f" {config.init} was trained: leave out init."
    )


def _refuse_other_grid(
    old: SequenceClassifier, new: SequenceClassifier, config: Config, features: Places
) -> None:
    """Raises ConfigError if what is read across is not what the trained model read."""
    if old.grid is None or new.grid is None:
        return
    same = list(range(new.input_size))
    if old.grid != new.grid or features != (same, same):
        sizes = [f"{grid.steps} steps of {grid.columns} columns" for grid in (old.grid, new.grid)]
        raise ConfigError(
            f"{config.init} was trained with axes={config.axes} on sequences of {sizes[0]}, and goes on only"
            f" with the same ones; these have {sizes[1]}, or other channels: leave out init."
        )


def _refuse_frozen(config: Config, match: _Match) -> None:
    """Raises ConfigError if weights that are to stay as they are would be new."""
    new = [f"channel '{name}'" for name in match.new()]
    new += [f"names of channel '{name}'" for name in match.with_new_names()]
    new += ["where values are missing"] if match.new_masks else []
    if new and config.freeze != "none":
        raise ConfigError(
            f"freeze={config.freeze} leaves the input weights as they are, but {config.init} has none for"
            f" {new[0]}: leave out freeze."
        )


def _model(config: Config) -> str:
    layers = "" if config.layers == 1 else f" layers={config.layers}"
    return f"cell={config.cell.name} hidden={config.cell.hidden_size}{layers}"


def _about_channels(match: _Match) -> list[str]:
    kept, new, gone = match.kept(), match.new(), match.gone()
    found = []
    if match.nameless and kept:
        found.append(f"Channels are matched by their order, since {match.nameless} have no names.")
    if not kept:
        found.append("None of its channels is in these data: all input weights are new.")
    elif new:
        their = "its" if len(new) == 1 else "their"
        found.append(f"{_listed('Channel', new)} new to it: {their} input weights are drawn anew.")
    if gone:
        their = "its" if len(gone) == 1 else "their"
        found.append(f"{_listed('Channel', gone)} not in these data: {their} input weights are left out.")
    for name in match.with_new_names():
        found.append(f"Channel '{name}' has names that are new to it: their weights are drawn anew.")
    if match.new_masks:
        found.append("It was not told where values are missing: the input weights for that are drawn anew.")
    return found


def _about_preparation(config: Config) -> str:
    keys = [key for key in (*OF_STEPS, *OF_VALUES) if hasattr(config.dataset, key)]
    words = " ".join(f"dataset.{key}={word_of(getattr(config.dataset, key))}" for key in keys)
    return f"The preparation is fitted anew, to the training sequences of these data: {words}."


def _about_head(then: Sequence[str], now: Sequence[str]) -> str:
    new, kept = [name for name in now if name not in then], [name for name in now if name in then]
    if not kept:
        return "The head is new: none of its classes is in these data."
    gone = [name for name in then if name not in now]
    if not new and not gone:
        return "The head is taken over: the classes are the same."
    parts = [f"{_listed('class', kept)} taken over"]
    parts += [f"{_listed('class', new)} new"] if new else []
    parts += [f"{_listed('class', gone)} left out"] if gone else []
    return f"Of the head, {', '.join(parts)}."


def _about_freezing(config: Config, model: SequenceClassifier) -> list[str]:
    if config.freeze == "none":
        return []
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    return [
        f"freeze=cell: {trained:,} of {model.parameter_count():,} weights are trained, those of the head;"
        " the layers compute as in evaluation, without dropout."
    ]


def _listed(what: str, names: Sequence[str]) -> str:
    """Names and a verb: "Channels 'a', 'b' are"."""
    shown = ", ".join(f"'{name}'" for name in names[:SHOWN]) + (" …" if len(names) > SHOWN else "")
    if len(names) == 1:
        return f"{what} {shown} is"
    return f"{len(names)} {what.lower()}{'es' if what == 'class' else 's'} ({shown}) are"
