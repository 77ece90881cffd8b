"""What is searched where the user names no ranges, and the point at which a search begins."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from rnnclf.cells import CELLS
from rnnclf.optim import OPTIMIZERS
from rnnclf.tuning.space import Choice, Dimension, Point, Real, Space, Value, Whole, as_typed

MOST = 7  # dimensions, with those of the user: each further one dilutes the trials that there is time for

OF_CELLS: dict[str, dict[str, Real | Whole]] = {
    # step and damping of the Euler steps: the more steps there are, the smaller (0.01 for hundreds)
    "antisym": {
        "cell.epsilon": Real(0.01, 1.0, log=True),
        "cell.gamma": Real(0.001, 1.0, log=True),
    },
    # Rusch & Mishra 2021 tune all three: 0.042, 2.7, 4.7 for sMNIST, 0.076, 0.4, 8 for psMNIST; with tens of
    # steps, larger ones of the first
    "cornn": {
        "cell.dt": Real(0.01, 1.0, log=True),
        "cell.gamma": Real(0.1, 10.0, log=True),
        "cell.epsilon": Real(0.1, 10.0, log=True),
    },
    # Lukoševičius 2012: after the size, these three are what a reservoir has to be tuned for; spectral radii
    # above 1 can still forget if the input is strong
    "esn": {
        "cell.spectral_radius": Real(0.3, 1.5),
        "cell.leak": Real(0.01, 1.0, log=True),
        "cell.input_scale": Real(0.05, 5.0, log=True),
    },
    "lem": {
        "cell.dt": Real(0.05, 2.0, log=True)
    },  # Rusch et al. 2022: 0.21 for sMNIST, 1 where steps are few
    # Erichson et al. 2021 use 0.03 for hundreds of steps; with tens it would hardly change the state
    "lipschitz": {"cell.epsilon": Real(0.01, 1.0, log=True)},
    "lmu": {"cell.theta": Real(10.0, 1000.0, log=True)},  # about the length of the sequences, unknown here
    # Rusch & Mishra 2021 use 0.19 and 30.65 for psMNIST; dt² (alpha + |u|) must stay below 4
    "unicornn": {"cell.dt": Real(0.05, 1.0, log=True), "cell.alpha": Real(0.1, 30.0, log=True)},
}
"""The options without which a cell is not itself on data of another length or scale."""


def default_space(
    plain: Mapping[str, Any], fixed: Collection[str] = (), searched: Space | None = None
) -> Space:
    """The dimensions to search beside those of the user, the most important first.

    Args:
        plain: a configuration of the search, as `Config.to_plain` gives it.
        fixed: the keys that have one value in all runs because the user typed it.
        searched: the dimensions that the user named.

    The number of epochs is never among them: learning rates are laid out for it.
    """
    searched = searched or {}
    typed = {*fixed, *searched}
    if typed & {"match_parameters", "cell.hidden_size"}:
        typed.add("hidden")
    candidates = {
        key: dimension
        for key, dimension in _candidates(plain, searched).items()
        if key not in typed and not (plain["init"] and _is_of_model(key))
    }
    return dict(list(candidates.items())[: max(MOST - len(searched), 0)])


def _candidates(plain: Mapping[str, Any], searched: Space) -> Space:
    cells = _names("cell", plain, searched)
    optimizers = _names("optimizer", plain, searched)
    space: Space = {"optimizer.lr": _rates(plain, optimizers), "hidden": _sizes(plain, cells)}
    if len(cells) == 1:
        space |= OF_CELLS.get(cells[0], {})
    # two layers gained 0.7 to 0.9 points over one on the rows of MNIST, for twice the time
    space["layers"] = Whole(1, 3)
    # up to the 0.5 of Srivastava et al. 2014, and of Zaremba et al. 2014 between recurrent layers
    space["dropout"] = Real(0.0, 0.5)
    # on short series, the mean was ahead on average and the last step on some
    space["readout"] = Choice(("last", "mean"))
    # smaller batches make more steps in as many epochs (Shallue et al. 2019). Not with `updates`: then the
    # number of epochs follows from the batch, and curves of different lengths cannot be compared
    if plain["updates"] is None:
        batch = int(plain["batch_size"])
        space["batch_size"] = Whole(max(batch // 4, 1), 2 * batch, log=True)
    # a decade to both sides of the usual decoupled decay; with the other optimizers it is L2, and usually off
    if optimizers == ("adamw",):
        space["optimizer.weight_decay"] = Real(0.001, 0.1, log=True)
    return space


def _names(group: str, plain: Mapping[str, Any], searched: Space) -> tuple[str, ...]:
    """The components of a group that occur in the search."""
    chosen = searched.get(group)
    return chosen.values if isinstance(chosen, Choice) else (str(plain[group]["name"]),)


def _rates(plain: Mapping[str, Any], optimizers: tuple[str, ...]) -> Real:
    """From a twentieth to five times the learning rate of the configuration, or of all optimizers searched.

    It is the largest rate of the schedule. Greff et al. 2017 find that it matters more than all else for an
    LSTM, followed by the size, and that the range of good ones is wide.
    """
    usual = [float(plain["optimizer"]["lr"])]
    if len(optimizers) > 1:
        usual = [OPTIMIZERS[name]().lr for name in optimizers]
    return Real(float(f"{min(usual) / 20:.3g}"), float(f"{max(usual) * 5:.3g}"), log=True)


def _sizes(plain: Mapping[str, Any], cells: tuple[str, ...]) -> Whole:
    """The sizes of 64 to 150 that recipe and defaults use, and about two doublings to both sides: parameters
    and time grow with the square. A reservoir, whose units are not trained, is larger (Lukoševičius 2012)."""
    low, high = (64, 512) if cells == ("esn",) else (16, 256)
    multiple = math.lcm(*(_multiple(name, plain["cell"]) for name in cells))
    if multiple == 1:
        return Whole(low, high, log=True)
    least = math.ceil(low / multiple)
    return Whole(least * multiple, max(high // multiple, least + 1) * multiple, step=multiple)


def _multiple(name: str, plain: Mapping[str, Any]) -> int:
    """What hidden must be a multiple of: it depends on the options of the cell."""
    kind = CELLS[name]
    return (kind(**plain) if plain["name"] == name else kind()).multiple


def _is_of_model(key: str) -> bool:
    """Whether a key is taken from the trained model with which training begins."""
    return key in ("hidden", "layers", "readout") or key.startswith("cell.")


def starting_point(space: Space, plain: Mapping[str, Any]) -> Point | None:
    """The point that is nearest to a configuration; None if one of its values is not among the choices.

    A search that begins there ends no worse than the settings that one would have used without it.
    """
    point: Point = {}
    for key, dimension in space.items():
        value: Any = plain
        for part in key.split("."):
            value = value[part]
        nearest = _nearest(dimension, value["name"] if isinstance(value, Mapping) else value)
        if nearest is None:
            return None
        point[key] = nearest
    return point


def _nearest(dimension: Dimension, value: Any) -> Value | None:
    if isinstance(dimension, Choice):
        return next((typed for typed in dimension.values if _means(typed, value)), None)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    within = min(max(value, dimension.low), dimension.high)
    if isinstance(dimension, Real):
        return float(within)
    return dimension.low + round((within - dimension.low) / dimension.step) * dimension.step


def _means(typed: str, value: Any) -> bool:
    """Whether a word on the command line stands for a value of a configuration."""
    plain = typed.strip("'\"")
    if value is None or isinstance(value, bool):
        return plain.lower() == ("null" if value is None else str(value).lower())
    if isinstance(value, int | float):
        try:
            return float(plain) == value
        except ValueError:
            return False
    return plain == as_typed(str(value))
