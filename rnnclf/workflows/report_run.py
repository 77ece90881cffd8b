"""The chapter of a report on one run. Torch-free, but for drawing the mistakes."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rnnclf.baselines import BASELINES
from rnnclf.calibration import Range
from rnnclf.checkpoint import describe
from rnnclf.data import SPLITS
from rnnclf.durations import seconds_in_words
from rnnclf.errors import CheckpointError, RnnclfError
from rnnclf.hydra_app.grammar import meant
from rnnclf.metrics import ClassScore, interval, percent, wilson_interval
from rnnclf.report import charts
from rnnclf.report.document import (
    Block,
    Cell,
    Chapter,
    Commands,
    Figure,
    Figures,
    Folded,
    Gallery,
    Headline,
    Points,
    Table,
    Words,
    sections,
)
from rnnclf.report.drawing import PageDrawer
from rnnclf.workflows import plots
from rnnclf.workflows.baseline_runs import baselines_beside
from rnnclf.workflows.judged import Judged, judged
from rnnclf.workflows.metric_rows import calibrated, explained, metric_rows
from rnnclf.workflows.report_words import doubts_of, how_it_was_judged, result_in_words, what_was_trained
from rnnclf.workflows.runs import RunFolder, fits, read_json

MOST_DRAWN = 96  # mistakes
MOST_LISTED = 200  # classes of the table of classes, the worst first


@dataclass(frozen=True)
class Reported:
    """A finished run, and what its files say."""

    run: RunFolder
    typed: str
    """Its folder as the user named it."""

    @cached_property
    def results(self) -> dict[str, Any]:
        return self.run.read_results()

    @cached_property
    def status(self) -> dict[str, Any]:
        return self.run.read_status()

    @cached_property
    def provenance(self) -> dict[str, Any]:
        return read_json(self.run.provenance)

    @cached_property
    def configuration(self) -> dict[str, Any]:
        found = self.status.get("configuration")
        return found if isinstance(found, dict) else {}

    @cached_property
    def overrides(self) -> list[str]:
        found: list[str] = self.status.get("overrides", [])
        return found

    @cached_property
    def judged(self) -> Judged | str:
        """The predictions for the test split, or why there are none."""
        return judged(self.run.predictions, "test", MOST_DRAWN)

    @cached_property
    def baselines(self) -> list[dict[str, Any]]:
        return baselines_beside(self.run)

    @property
    def title(self) -> str:
        r = self.results
        return f"{r['cell']}, {r['hidden']} units, on {r.get('data', r['dataset'])}"


def reported(run: RunFolder, typed: str) -> Reported:
    """Raises CheckpointError if the run has not finished, or is that of a baseline."""
    if run.baseline is not None:
        raise CheckpointError(f"{typed} holds a baseline: give a run of rnnclf train, whose report shows it.")
    found = Reported(run, typed)
    if not run.is_finished():
        state = run.state()
        what = f"is {state}" if run.status.exists() else "is not the folder of a run or a sweep"
        more = ": finish it with rnnclf resume first." if state in ("interrupted", "lost", "failed") else "."
        raise CheckpointError(f"{typed} {what}{more if run.status.exists() else '.'}")
    return found


def run_chapter(found: Reported, words: Sequence[str], draw: PageDrawer, key: str) -> Chapter:
    """words: overrides for the data of the run, which may be elsewhere by now, and plugins."""
    r = found.results
    test = r["test"]
    return Chapter(
        title=found.title,
        lead=(*what_was_trained(r, found.configuration), *how_it_was_judged(r)),
        headline=Headline(
            percent(test["accuracy"]),
            f"of {test['total']:,} test sequences classified correctly",
            tuple(_beside(found)),
        ),
        sections=sections(
            [
                ("Doubts", [doubts_block([*doubts_of(found.results, found.judged), *beaten(found)])]),
                ("Results", results_blocks(found)),
                *details(found, words, draw),
                ("Cost", [cost_table(found)]),
                ("To repeat it", repeat_blocks(found)),
            ]
        ),
        key=key,
    )


def _beside(found: Reported) -> Iterator[str]:
    test = found.results["test"]
    yield f"95 % interval {interval(test['interval95'])}"
    if fits(rate := test.get("commonest_rate"), float):
        yield f"always naming the most frequent class: {percent(rate)}"
    for baseline in found.baselines:
        yield f"{BASELINES[baseline['baseline']].title}: {percent(baseline['test']['accuracy'])}"


def beaten(found: Reported) -> Iterator[str]:
    """Which baselines do better than the run, by intervals that do not overlap."""
    for baseline in found.baselines:
        test = baseline["test"]
        if test["interval95"][0] > found.results["test"]["interval95"][1]:
            title = BASELINES[baseline["baseline"]].title
            yield f"{title}, a baseline, does better on the same sequences: {percent(test['accuracy'])}."


def details(found: Reported, words: Sequence[str], draw: PageDrawer) -> list[tuple[str, list[Block | None]]]:
    """What it has learned, where it errs, whether its probabilities can be trusted."""
    known = found.judged
    if isinstance(known, str):
        known_parts: list[tuple[str, list[Block | None]]] = [
            ("Classes and mistakes", [Words((f"They cannot be shown: {known}.",))])
        ]
    else:
        known_parts = [
            ("Classes", class_blocks(known, draw)),
            ("Can its probabilities be trusted?", calibration_blocks(found.results, known, draw)),
            ("The mistakes", mistake_blocks(found, known, words)),
        ]
    return [("How it learned", learning_blocks(found, draw)), *known_parts]


def doubts_block(doubts: Sequence[str]) -> Block | None:
    return Points(tuple(doubts), is_doubt=True) if doubts else None


def results_blocks(found: Reported) -> list[Block | None]:
    r = found.results
    scores: dict[str, Any] = {name: r[name] for name in SPLITS if name in r}
    rows = [
        (Cell(title, is_strong=number == 0), *(Cell(text, is_strong=number == 0) for text in texts))
        for number, (title, texts) in enumerate(metric_rows(scores))
    ]
    titles = ("", *({"train": "training"}.get(name, name) for name in scores))
    notes = tuple(explained(scores).splitlines())
    return [
        Words(tuple(result_in_words(r))),
        Table(titles, tuple(rows), notes, is_sortable=False, is_numeric=True),
        baseline_table(found),
    ]


def baseline_table(found: Reported) -> Block | None:
    """The run beside baselines on the same split."""
    if not found.baselines:
        return None
    every = [(found.title, found.results, True)]
    every += [(BASELINES[b["baseline"]].title, b, False) for b in found.baselines]
    rows = [
        (
            Cell(name, is_strong=own),
            Cell(percent(r["test"]["accuracy"]), r["test"]["accuracy"], own),
            interval_cell(r["test"]["interval95"]),
            Cell(seconds_in_words(r["total_seconds"]), r["total_seconds"]),
        )
        for name, r, own in sorted(every, key=lambda part: -part[1]["test"]["accuracy"])
    ]
    return Table(
        ("beside well-known classifiers", "test accuracy", "95 % interval", "time"),
        tuple(rows),
        ("All were trained and tested on the same sequences.",),
    )


def interval_cell(bounds: Sequence[float]) -> Cell:
    return Cell(interval(bounds), bounds[0])


def learning_blocks(found: Reported, draw: PageDrawer) -> list[Block | None]:
    epochs, best = plots.epochs_of(found.run), found.results["best_epoch"]
    if not epochs:
        return [Words(("epochs.csv cannot be read.",))]
    last = epochs[-1]
    sentences = []
    gap = last.accuracy.get("training", 0) - last.accuracy.get("validation", 1)
    if gap > 0.1:
        sentences.append(
            f"At the end it classified {percent(last.accuracy['training'])} of the training sequences"
            f" correctly, but only {percent(last.accuracy['validation'])} of the validation sequences: it"
            " knows the former by heart. More data, augmentation or dropout may help."
        )
    if found.results.get("select", "best") == "best" and best == last.number and len(epochs) > 1:
        sentences.append("The last epoch was the best: longer training may give a better result.")
    figures = [
        Figure(draw(charts.learning_curve(epochs, best, what), f"{what} of each epoch"))
        for what in ("accuracy", "loss")
    ]
    return [Words(tuple(sentences)) if sentences else None, Figures(tuple(figures))]


def class_blocks(known: Judged, draw: PageDrawer) -> list[Block | None]:
    scores = known.by_class()
    figures = []
    if known.counts is not None:
        caption = (
            "Each row is a class. The deeper the colour, the larger its share of the row: blue is right."
        )
        figures.append(
            Figure(draw(charts.confusion(known.classes, known.counts), "confusion matrix"), caption)
        )
    caption = "The lines are 95 % intervals: the fewer sequences, the longer."
    figures.append(Figure(draw(charts.by_class(scores), "accuracy of each class"), caption))
    return [Figures(tuple(figures)), class_table(known, scores)]


def class_table(known: Judged, scores: Sequence[ClassScore]) -> Table:
    """The classes with the one that each is most often taken for."""
    taken: dict[int, tuple[int, int]] = {}
    for (i, j), count in known.pairs.items():
        if i != j and count > taken.get(i, (0, 0))[0]:
            taken[i] = (count, j)
    order = sorted(range(len(scores)), key=lambda i: scores[i].recall)[:MOST_LISTED]
    rows = [_class_row(scores[i], taken.get(i), known.classes) for i in sorted(order)]
    left = len(scores) - len(rows)
    notes = [
        "recognised: share of the class's sequences that are classified correctly; precision: share of the"
        " sequences so classified that belong to the class"
    ]
    notes += [f"the {len(rows)} least recognised of {len(scores):,} classes"] if left else []
    titles = ("class", "sequences", "recognised", "95 % interval", "precision", "F1", "most often taken for")
    return Table(titles, tuple(rows), tuple(notes))


def _class_row(score: ClassScore, taken: tuple[int, int] | None, classes: Sequence[str]) -> tuple[Cell, ...]:
    right = round(score.recall * score.support)
    bounds = interval_cell(wilson_interval(right, score.support)) if score.support else Cell("–", -1)
    return (
        Cell(score.name),
        Cell(f"{score.support:,}", score.support),
        Cell(percent(score.recall) if score.support else "–", score.recall if score.support else -1),
        bounds,
        Cell(percent(score.precision), score.precision),
        Cell(percent(score.f1), score.f1),
        Cell(f"{classes[taken[1]]} ({taken[0]:,})" if taken else "–"),
    )


def calibration_blocks(results: Mapping[str, Any], known: Judged, draw: PageDrawer) -> list[Block | None]:
    sentences = ["If probabilities are right, of all answers that it is 90 % sure of, 90 % are correct."]
    found = results.get("calibration")
    if fits(found, {"temperature": float, "sequences": int, "ece_before": float, "ece_after": float}):
        sentences.append(_capital(calibrated(found, bool(results.get("final_fit"))) + "."))  # type: ignore[arg-type]
    caption = "On the dashed line, probabilities are right. The larger a point, the more sequences."
    figure = Figure(
        draw(charts.calibration(known.reliability), "probability and share that is right"), caption
    )
    return [Words((" ".join(sentences),)), Figures((figure,)), _reliability_table(known.reliability)]


def _reliability_table(ranges: Sequence[Range]) -> Table:
    rows = [
        (
            Cell(f"{100 * r.low:g} to {100 * r.high:g} %"),
            Cell(f"{r.sequences:,}", r.sequences),
            Cell(percent(r.probability), r.probability),
            Cell(percent(r.correct / r.sequences), r.correct / r.sequences),
            interval_cell(wilson_interval(r.correct, r.sequences)),
        )
        for r in ranges
    ]
    titles = ("probability", "sequences", "its mean", "correct", "95 % interval")
    return Table(titles, tuple(rows), is_sortable=False)


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def mistake_blocks(found: Reported, known: Judged, words: Sequence[str]) -> list[Block | None]:
    if not known.wrong:
        return [Words((f"None of the {known.total:,} test sequences was misclassified.",))]
    number = f"{known.mistakes:,} of {known.total:,} test sequences were misclassified."
    if len(known.wrong) < known.mistakes:
        number += f" These are the {len(known.wrong)} of which it was most certain."
    gallery, why = _gallery(found, known, words)
    return [Words((number, *([why] if why else []))), gallery]


def _gallery(found: Reported, known: Judged, words: Sequence[str]) -> tuple[Gallery, str]:
    """The mistakes, and why they are not drawn, if they are not. Raises CheckpointError if the words of the
    user are the reason."""
    from rnnclf.workflows.report_drawings import drawn, undrawn

    try:
        return drawn(found.run, known.wrong, words), ""
    except (RnnclfError, OSError) as error:
        if words:
            raise CheckpointError(f"The mistakes of {found.typed} cannot be drawn: {error}") from error
        return undrawn(known.wrong), f"They are not drawn, because the data cannot be read: {error}"


def cost_table(found: Reported) -> Block:
    r, p = found.results, found.provenance
    hardware: dict[str, Any] = p["hardware"] if isinstance(p.get("hardware"), dict) else {}
    engine = r.get("engine")
    seconds = r.get("epoch_seconds")
    facts = {
        "parameters": f"{r['parameters']:,}",
        "epochs": f"{r['epochs']:,}",
        "time in all": seconds_in_words(r["total_seconds"]),
        "time of an epoch": seconds_in_words(sum(seconds) / len(seconds))
        if fits(seconds, [float]) and seconds
        else None,
        "device": hardware.get("gpu") or hardware.get("cpu"),
        "threads": p.get("threads"),
        "engine": engine.get("name") if isinstance(engine, dict) else engine,
        "best.safetensors": _size(found.run.best),
    }
    return facts_table({name: value for name, value in facts.items() if value is not None})


def _size(path: Path) -> str | None:
    return f"{path.stat().st_size / 1e6:,.2f} MB" if path.is_file() else None


def facts_table(facts: Mapping[str, Any]) -> Table:
    rows = tuple((Cell(name), Cell(str(value))) for name, value in facts.items())
    return Table(("", ""), rows, is_sortable=False)


def repeat_blocks(found: Reported) -> list[Block | None]:
    """The commands, the versions and the hashes."""
    folder = shlex.quote(found.typed)
    lines = [(train_command(found.overrides), "train it again")]
    typed = found.provenance.get("command")
    if isinstance(typed, str) and " train " in f"{typed} ":
        lines.append((f"rnnclf {typed.partition(' ')[2]}", "what was typed"))
    lines += [
        (f"rnnclf eval {folder} --errors", "score it again, on these or other data"),
        (f"rnnclf predict {folder} new.csv", "classify new sequences"),
    ]
    facts = provenance_facts(found)
    flat = dict(flattened(found.configuration))
    return [
        Commands(tuple(lines)),
        facts_table(facts) if facts else None,
        Folded("The whole configuration", facts_table(flat)) if flat else None,
    ]


def train_command(overrides: Sequence[str]) -> str:
    """The command that trains a run with these overrides, as they were typed."""
    words = [f"{key}{equals}{meant(value)}" for key, equals, value in (w.partition("=") for w in overrides)]
    return shlex.join(("rnnclf", "train", *words))


def provenance_facts(found: Reported) -> dict[str, Any]:
    p, status = found.provenance, found.status
    started = status.get("started")
    versions = p.get("versions")
    hardware = p.get("hardware")
    facts = {
        "started": time.strftime("%Y-%m-%d %H:%M", time.localtime(started)) if fits(started, float) else None,
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items())
        if isinstance(versions, dict)
        else None,
        "source code": p.get("git_revision"),
        "system": hardware.get("system") if isinstance(hardware, dict) else None,
        "SHA-256 of the data": p.get("data_fingerprint"),
        "hash of the division": p.get("division"),
        "hash of the configuration": status.get("config"),
        "SHA-256 of best.safetensors": _sha256(found.run.best),
        "seed": found.results.get("seed"),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _sha256(path: Path) -> str | None:
    try:
        return describe(path).sha256
    except RnnclfError:
        return None


def flattened(plain: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A configuration as keys and values, as one types them."""
    for key, value in plain.items():
        if isinstance(value, dict):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", "null" if value is None else value
