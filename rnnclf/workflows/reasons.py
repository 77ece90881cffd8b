"""Why recipe=auto chose what it chose, as sentences for the user."""

from __future__ import annotations

from typing import Any

from rnnclf.config import GROUPS, Config
from rnnclf.data import Splits
from rnnclf.hydra_app.recipes import values_of_recipe
from rnnclf.options import as_typed

MODEL = ("cell", "hidden", "layers", "residual", "norm", "readout")
TRAINING = ("batch_size", "sampling", "optimizer.lr")


def reasons(asked: Config, config: Config, splits: Splits) -> tuple[str, ...]:
    """What the recipe chose and why, leaving out what the user chose otherwise; nothing for recipe=plain.

    Args:
        asked: the configuration before anything was settled by the data; `config` is the one after.
    """
    if asked.recipe != "auto":
        return ()
    train, preparation, values = splits.train, splits.learned.preparation, values_of_recipe()
    model = "" if asked.init else _chosen(asked, values, MODEL)  # then it is that of the other run
    training = _chosen(asked, values, TRAINING)
    found = ["recipe=auto chooses what you leave out; recipe=plain takes the defaults instead."]
    if model:
        found.append(f"{model}: one model for short and for long sequences.")
    if asked.updates is not None:
        found.append(f"epochs={config.epochs} {training}".strip() + f": {_updates(config, len(train))}.")
    if asked.dataset.missing == "auto" and preparation.missing == "mask":
        found.append("dataset.missing=mask: values are missing, and the model is told which.")
    chosen = _chosen(asked, values, ("dataset.normalise",))
    if chosen and preparation.of_numbers(preparation.curve_C):
        found.append(
            f"{chosen}: each channel by its ranks, so that a few large values do not hide the others."
        )
    if preparation.patch > 1 and getattr(asked.dataset, "patch", None) == "auto":
        steps = f"{train.steps:,} of {preparation.patch} neighbouring steps each"
        found.append(
            f"dataset.patch={preparation.patch}: the sequences are long; their steps become {steps}."
        )
    if _chosen(asked, values, ("select",)):
        n = len(splits.validation)
        found.append(f"select=last: the {n:,} validation sequences choose no epoch, so their score is fair.")
    if _chosen(asked, values, ("final_fit",)):
        n = len(train) + len(splits.validation)
        found.append(f"final_fit=true: the model is trained once more on all {n:,} before the test.")
    return tuple(found)


def _updates(config: Config, sequences: int) -> str:
    steps = -(-sequences // config.batch_size) * config.epochs
    return f"{steps:,} updates, on {sequences:,} training sequences"


def _chosen(config: Config, values: dict[str, Any], keys: tuple[str, ...]) -> str:
    """The words for those of `keys` that have the value of the recipe."""
    chosen = {key: values[key] for key in keys if _value(config, key) == values[key]}
    words = {key: value if isinstance(value, str) else as_typed(value) for key, value in chosen.items()}
    return " ".join(f"{key}={word}" for key, word in words.items())


def _value(config: Config, key: str) -> Any:
    if key in GROUPS:
        return getattr(config, key).name
    for part in key.split("."):
        config = getattr(config, part)
    return config
