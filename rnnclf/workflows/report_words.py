"""The sentences of a report, for a reader who was not there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rnnclf.metrics import interval, percent
from rnnclf.workflows.judged import Judged
from rnnclf.workflows.runs import fits

FEW = 200  # test sequences, below which an accuracy is uncertain by several points
FEW_MEMBERS = 5  # of a class in the test split, below which nothing can be said about it


def what_was_trained(r: Mapping[str, Any], configuration: Mapping[str, Any]) -> Iterator[str]:
    layers = configuration.get("layers", 1)
    layer = (
        f"{layers} layers of {r['hidden']} {r['cell']} units"
        if layers != 1
        else f"{r['hidden']} {r['cell']} units"
    )
    axes = {
        "both": "each sequence along its steps and across them",
        "alternating": "the columns and the rows of each sequence alternately",
    }.get(configuration.get("axes", "steps"), "")
    if configuration.get("bidirectional"):
        axes = f"{axes}, in both directions," if axes else "each sequence in both directions"
    ways = f" that reads {axes}" if axes else ""
    data = r.get("data", r["dataset"])
    yield (
        f"A recurrent network of {layer} ({r['parameters']:,} parameters){ways} was trained to classify the"
        f" sequences of {data}. It learned from {_total(r, 'train')} sequences. {_total(r, 'validation')}"
        f" others were kept for validation and {_total(r, 'test')} for the test."
    )


def _total(r: Mapping[str, Any], split: str) -> str:
    found = r.get(split)
    return f"{found['total']:,}" if isinstance(found, Mapping) else "?"


def how_it_was_judged(r: Mapping[str, Any]) -> Iterator[str]:
    epochs = r["epochs"]
    times = f"{epochs:,} times" if epochs > 1 else "once"
    parts = [f"Training went through the training sequences {times}."]
    if r.get("select", "best") == "last":
        parts.append("The weights after the last pass were kept.")
    elif epochs > 1:
        parts.append(
            "After each pass the network was scored on the validation sequences, and the weights that did"
            f" best were kept: those of epoch {r['best_epoch']:,}."
        )
    if r.get("final_fit"):
        parts.append(
            "It was then trained once more, on the training and the validation sequences together; the result"
            " is that network."
        )
    if r.get("protocol") == "tutorial":
        parts.append("The test sequences were scored after every pass, too, but influenced no choice.")
    else:
        parts.append("The test sequences were used only once, at the end, and influenced no choice.")
    if r.get("stopped"):
        parts.append(str(r["stopped"]))
    yield " ".join(parts)


def result_in_words(r: Mapping[str, Any]) -> Iterator[str]:
    test = r["test"]
    low, high = test["interval95"]
    yield (
        f"The network classifies {test['correct']:,} of {test['total']:,} test sequences correctly,"
        f" {percent(test['accuracy'])}. Another test set of the same kind would give a somewhat different"
        f" figure; the 95 % interval goes from {percent(low)} to {percent(high)}."
    )


def doubts_of(r: Mapping[str, Any], judged: Judged | str) -> list[str]:
    """Every reason not to take the results at face value."""
    test = r["test"]
    found = [str(sentence) for sentence in r.get("warnings", [])]
    rate = test.get("commonest_rate")
    if fits(rate, float) and test["interval95"][0] <= rate:
        found.append(
            f"The result may be no better than guessing: always naming the most frequent class is right"
            f" {percent(rate)} of the time, and the 95 % interval is {interval(test['interval95'])}."
        )
    if test["total"] < FEW:
        width = 100 * (test["interval95"][1] - test["interval95"][0])
        found.append(
            f"The test split has only {test['total']:,} sequences, so the 95 % interval is {width:.0f} points"
            " wide. Cross-validation (folds=5) would test on all sequences."
        )
    if isinstance(judged, Judged):
        rare = [score.name for score in judged.by_class() if score.support < FEW_MEMBERS]
        if rare:
            names = ", ".join(f"'{name}'" for name in rare[:5]) + (" and others" if len(rare) > 5 else "")
            found.append(
                f"{len(rare):,} of {len(judged.classes):,} classes have fewer than {FEW_MEMBERS} test"
                f" sequences, too few to say anything about them: {names}."
            )
    rollbacks, extended = r.get("rollbacks"), r.get("extended")
    if isinstance(rollbacks, list) and rollbacks:
        times = f"{len(rollbacks)} times" if len(rollbacks) > 1 else "once"
        found.append(f"Training diverged {times} and continued with a smaller learning rate.")
    found += training_doubts(r)
    if isinstance(extended, list) and extended:
        found.append("It was trained longer than first planned, when its results were already known.")
    return found


def training_doubts(r: Mapping[str, Any]) -> list[str]:
    """What is said of breaks of training and of a shortfall, in results of any origin; runs of older versions
    have none."""
    breaks, shortfall = r.get("breaks"), r.get("shortfall")
    found = [*(breaks if isinstance(breaks, list) else []), shortfall]
    return [one["words"] for one in found if one is not None and fits(one, {"words": str})]
