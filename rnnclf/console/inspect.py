"""Descriptions of checkpoints and of the folders of runs, sweeps, searches and evaluations.

The files may come from an untrusted source, so any value may have any type.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from rnnclf.console.metrics import calibrated
from rnnclf.console.screen import interval, mean_and_sd, screen, seconds_in_words, short
from rnnclf.console.tables import PlainTable
from rnnclf.escaping import one_line
from rnnclf.export.reading import ExportedFile
from rnnclf.metrics import percent
from rnnclf.system.memory import in_bytes
from rnnclf.tuning.space import described
from rnnclf.tuning.space import words as words_of
from rnnclf.workflows.inspect import (
    CheckpointFacts,
    EnsembleFacts,
    EvaluationFacts,
    ExportedFacts,
    Facts,
    RunFacts,
    SearchFacts,
    SweepFacts,
)
from rnnclf.workflows.report_words import training_doubts
from rnnclf.workflows.runs import ENGINE, SCORE, fits
from rnnclf.workflows.search.standing import STATES

if TYPE_CHECKING:
    from rnnclf.workflows.search.outcome import Outcome

LONGEST = 400  # characters of a line; --json has all
GROUPS = ("cell", "optimizer", "schedule", "dataset", "augment", "average")
SIZES = ("axes", "layers", "bidirectional", "readout")
STYLES = {"done": "green", "failed": "red"}


def show_inspection(found: Facts) -> None:
    console = screen()
    if isinstance(found, CheckpointFacts):
        console.print(_headed(found, f"checkpoint, {in_bytes(found.size)}", _of_checkpoint(found)))
    elif isinstance(found, ExportedFacts):
        kind = "one step" if found.file.facts["kind"] == "step" else "whole sequences"
        console.print(_headed(found, f"ONNX, {kind}, {in_bytes(found.file.size)}", of_export(found.file)))
    elif isinstance(found, EnsembleFacts):
        console.print(_headed(found, found.file.title, _of_ensemble(found)))
    elif isinstance(found, RunFacts):
        console.print(_headed(found, f"run, {found.state}", _of_run(found)))
        if found.checkpoints:
            console.print(_checkpoints(found.checkpoints))
    elif isinstance(found, EvaluationFacts):
        checkpoints = f"{len(found.scores):,} checkpoint{'' if len(found.scores) == 1 else 's'}"
        console.print(_headed(found, f"evaluation of {checkpoints}", ()))
        console.print(_evaluated(found))
    elif isinstance(found, SearchFacts):
        _show_search(found)
    else:
        states = ", ".join(f"{count} {state}" for state, count in found.states.items())
        console.print(_headed(found, f"sweep of {len(found.jobs)} jobs: {states}", ()))
        console.print(_jobs(found))
    if isinstance(found, RunFacts | SweepFacts | SearchFacts) and found.resumable:
        console.print(f"resume it: rnnclf resume {short(found.path)}", soft_wrap=True)


def _headed(found: Facts, what: str, lines: Iterable[tuple[str, str]]) -> Group:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in lines:
        if value:
            grid.add_row(Text(name, style="bold"), Text(_cut(value)))
    headline = Text(short(found.path), style="bold cyan").append(f"  {_cut(what)}", style="not bold default")
    return Group(headline, grid)


def _of_checkpoint(found: CheckpointFacts) -> Iterator[tuple[str, str]]:
    header = found.header
    yield from _of_model(header, found.parameters)
    yield "epoch", _plain(header.get("epoch"))
    yield from _scores(header.get("metrics"))
    if isinstance(calibration := header.get("calibration"), dict):
        yield "calibration", calibrated(calibration, header["config"].get("final_fit") is True)
    yield "made with", f"rnnclf {_plain(header.get('rnnclf', '?'))}, format {_plain(header.get('format'))}"
    yield "holds", _counted(found.tensors or {})
    yield "checksum", "does not match: the file is damaged" if found.error else f"ok, SHA-256 {found.sha256}"
    yield (
        "resumable",
        "yes: rnnclf resume its run folder" if found.resumable else "no, weights only: rnnclf eval",
    )


def _of_ensemble(found: EnsembleFacts) -> Iterator[tuple[str, str]]:
    for member in found.file.members:
        yield "member", f"{member.weight} × {member.checkpoint}, {member.words}"
    for split, score in found.file.scores.items():
        optimistic = ", too optimistic: it was chosen on it" if split == "validation" else ""
        yield split, f"{percent(score['accuracy'])} ({interval(score['interval95'])}){optimistic}"
    yield "data", f"SHA-256 {found.file.fingerprint}"
    yield "checksums", "a member is not the one that is named" if found.error else "ok"


def _of_model(header: Mapping[str, Any], parameters: int) -> Iterator[tuple[str, str]]:
    config = header.get("config", {})
    cell = config.get("cell")
    sizes = {"hidden": cell.get("hidden_size") if isinstance(cell, dict) else None}
    sizes |= {key: config.get(key) for key in SIZES}
    name = _plain(cell.get("name", "?")) if isinstance(cell, dict) else "?"
    yield "model", f"{name}, {_words(sizes)}; {parameters:,} parameters"
    yield "engine", _engine(header.get("engine"))
    for group in GROUPS:
        yield group, _component(config.get(group))
    rest = {key: value for key, value in config.items() if key not in (*GROUPS, *SIZES)}
    yield "settings", _words({key: value for key, value in rest.items() if not _off(value)})
    classes, steps = header.get("classes", []), header.get("steps")
    length = f"{steps} steps of " if isinstance(steps, int) else ""
    features = f"{length}{_plain(header.get('input_size'))} features"
    yield "data", f"{features}, SHA-256 {_plain(header.get('fingerprint'))}"
    yield "classes", f"{len(classes):,}: {', '.join(map(str, classes[:LONGEST]))}"
    yield "reading", _words(header.get("reading", {}))
    yield "preparation", _preparation(header.get("preparation", {}))


def of_export(file: ExportedFile) -> Iterator[tuple[str, str]]:
    """What an exported file says of itself, line by line."""
    facts = file.facts
    int8 = ", weights of 8 bits" if facts["int8"] else ""
    size = {"hidden": facts.get("hidden")}
    yield "model", f"{_plain(facts['cell'])} {_words(size)}; {file.numbers:,} numbers{int8}"
    yield "classes", f"{len(file.classes):,}: {', '.join(file.classes[:LONGEST])}"
    yield "preparation", _preparation(facts["preparation"])
    yield "reading", _words(facts["reading"])
    yield from signature(file)
    yield "temperature", _plain(facts["temperature"])
    test = facts.get("test")
    if isinstance(test, dict) and isinstance(test.get("accuracy"), float):
        yield "test", f"{percent(test['accuracy'])} before the export"
    check = facts.get("check")
    yield "check", _words(check) if isinstance(check, dict) else ""
    yield "operators", _words(file.operators)
    yield "made with", f"rnnclf {_plain(facts['rnnclf'])}; opset {file.opset}, IR {file.ir}"
    yield "from", f"checkpoint with SHA-256 {facts['checkpoint']}"


def signature(file: ExportedFile) -> Iterator[tuple[str, str]]:
    """The inputs and outputs of an exported file, line by line."""
    for title, ports in (("takes", file.inputs), ("gives", file.outputs)):
        for number, port in enumerate(ports):
            shape = ", ".join(map(str, port.shape))
            meaning = f": {port.meaning}" if port.meaning else ""
            yield title if number == 0 else " ", f"{port.name} ({shape}) {port.type}{meaning}"


def _of_run(found: RunFacts) -> Iterator[tuple[str, str]]:
    status, provenance = found.status, found.provenance
    yield "reason", _plain(status.get("error", ""))
    yield "started", _when(status.get("started"), status.get("seconds"))
    yield "overrides", " ".join(status.get("overrides", []))
    best = next((c for c in found.checkpoints if c.header), None)
    if best is not None:
        yield from _of_model(best.header, best.parameters)
    config = best.header["config"] if best else {}
    if "baseline" in found.results:
        yield "baseline", f"{found.results['baseline']} on {_plain(found.results.get('data', '?'))}"
        yield from _scores(found.results)
        return
    yield "epochs", f"{found.epochs} of {_plain(config.get('epochs', '?'))}"
    yield from _scores(found.results)
    for sentence in training_doubts(found.results):
        yield "training", sentence
    versions = provenance.get("versions")
    yield "made with", _words(versions, " ") if isinstance(versions, dict) else ""
    hardware = provenance.get("hardware")
    yield "machine", _words(hardware) if isinstance(hardware, dict) else ""
    yield "revision", _plain(provenance.get("git_revision") or "")


def _checkpoints(found: Iterable[CheckpointFacts]) -> Table:
    table = _table("checkpoint", "epoch", "validation", "size", "checksum", "resumable")
    for one in found:
        metrics = one.header.get("metrics")
        score = metrics.get("validation") if isinstance(metrics, dict) else None
        table.add_row(
            one.path.name,
            _plain(one.header.get("epoch", "")),
            percent(score["accuracy"]) if isinstance(score, dict) and fits(score, SCORE) else "",
            in_bytes(one.size) if one.size else "",
            Text("damaged", style="bold red") if one.error else "ok",
            "yes" if one.resumable else "",
        )
    return table


def _jobs(found: SweepFacts) -> Table:
    table = _table("job", "state", "epochs", "validation", "test")
    table.add_column("with", overflow="fold")
    for job in found.jobs:
        scores = [job.results.get(name) for name in ("validation", "test")]
        table.add_row(
            f"#{job.number}",
            Text(_cut(job.state, 20), style=STYLES.get(job.state, "yellow")),
            f"{job.epochs}",
            *(percent(score["accuracy"]) if score else "" for score in scores),
            _cut(": ".join(filter(None, (" ".join(job.status.get("overrides", [])), _error(job))))),
        )
    return table


def _show_search(found: SearchFacts) -> None:
    from rnnclf.console.search import longer

    outcome, console = found.outcome, screen()
    counts = "".join(f", {n} {state}" for state in STATES if (n := outcome.count(state)))
    trials = f"{len(outcome.seen)} trial{'' if len(outcome.seen) == 1 else 's'}{counts}"
    console.print(_headed(found, f"search, {found.state}: {trials}", _of_search(outcome)))
    if outcome.seen:
        console.print(_trials(outcome))
    if found.state in ("done", "failed"):
        console.print(f"search longer: rnnclf resume {short(found.path)} {longer(outcome)}", soft_wrap=True)


def _of_search(outcome: Outcome) -> Iterator[tuple[str, str]]:
    from rnnclf.console.search import how_searched

    search, best = outcome.search, outcome.best
    yield "words", " ".join(search.words)
    for number, (key, dimension) in enumerate(search.space.items()):
        yield "searched" if number == 0 else " ", described(key, dimension)
    yield "how", how_searched(search)
    yield "trained", seconds_in_words(outcome.seconds)
    if best is not None:
        score = "" if best.accuracy is None else f"validation {percent(best.accuracy)}, "
        yield "best so far", f"#{best.trial.number}, {score}{' '.join(words_of(best.trial.point))}"
    if (repeated := outcome.repeated) is not None and outcome.winner is not None:
        seeds = f"{len(repeated.done)} other seed{'' if len(repeated.done) == 1 else 's'}"
        yield "its seeds", f"test {mean_and_sd(repeated.test)} with {seeds}; {short(outcome.winner)}"
    if outcome.ensemble is not None:
        members, test = outcome.ensemble.members, outcome.ensemble.scores["test"]
        yield (
            "ensemble",
            f"test {percent(test['accuracy'])}, {len(members)} members; {outcome.ensemble.path.name}",
        )


def _trials(outcome: Outcome) -> Table:
    table = _table("trial", "state", "epochs", "validation")
    table.add_column("with", overflow="fold")
    for one in outcome.seen:
        state = outcome.state_of(one)
        told = one.reason if state == "failed" else ""
        table.add_row(
            f"#{one.trial.number}",
            Text(state, style=STYLES.get(state, "yellow")),
            f"{len(one.trial.curve)}",
            "" if one.accuracy is None else percent(one.accuracy),
            _cut(": ".join(filter(None, (" ".join(words_of(one.trial.point)), told)))),
        )
    return table


def _error(job: RunFacts) -> str:
    return _plain(job.error or job.status.get("error", ""))


def _evaluated(found: EvaluationFacts) -> Table:
    table = _table("model", "data", "accuracy", "95 % interval", "checkpoint")
    for score in found.scores:
        table.add_row(
            _cut(" ".join([score["cell"], *([str(hidden)] if (hidden := score.get("hidden")) else [])]), 40),
            _cut(f"{score['dataset']} {score['split']}", 40),
            percent(score["accuracy"]),
            interval(score["interval95"]),
            _cut(score["checkpoint"]),
        )
    return table


def _table(*columns: str) -> Table:
    table = PlainTable()
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def _scores(metrics: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(metrics, dict):
        return
    for split in ("train", "validation", "test"):
        score = metrics.get(split)
        if score is not None and fits(score, SCORE):
            correct = f"{score['correct']:,} of {score['total']:,}"
            yield split, f"{percent(score['accuracy'])} ({correct}; 95 % {interval(score['interval95'])})"


def _engine(used: Any) -> str:
    """What trained the model, which checkpoints of earlier versions do not say."""
    if not fits(used, ENGINE):
        return ""
    steps = ", whole steps" if used["whole_steps"] else ""
    return f"{used['name']}{steps}" + (f" ({used['reason']})" if used["reason"] else "")


def _component(part: Any) -> str:
    if not isinstance(part, dict):
        return ""
    options = {key: value for key, value in part.items() if key not in ("name", "hidden_size")}
    return f"{_plain(part.get('name', '?'))} {_words(options)}".strip()


def _preparation(part: Mapping[str, Any]) -> str:
    channels = part.get("channels")
    rest = {key: part.get(key) for key in ("missing", "interval")}
    if not isinstance(channels, list):
        return ""
    known = part.get("vocabulary_C") or [None] * len(channels)
    counted = [
        f"{_leaf(name)}: {len(own)} names" if isinstance(own, list) else _leaf(name)
        for name, own in zip(channels, known, strict=False)
    ]
    names = ", ".join([*counted[:8], *(["…"] if len(channels) > 8 else [])])
    return f"{len(channels):,} channels ({names}), {_words(rest)}"


def _words(values: Mapping[str, Any], equals: str = "=") -> str:
    """key=value, as on the command line; keys without a value are left out."""
    return " ".join(
        f"{key}{equals}{_plain(value)}" for key, value in values.items() if value not in (None, [])
    )


def _off(value: Any) -> bool:
    """Whether an option is switched off or left to the default."""
    return (
        value is None or value is False or value in ("none", "auto") or (value == 0 and type(value) is float)
    )


def _plain(value: Any) -> str:
    if isinstance(value, bool | None):
        return str(value).lower() if value is not None else "null"
    if isinstance(value, dict):
        return f"({_words(value)})" if len(value) <= 3 else f"({len(value)} values)"
    if isinstance(value, list):
        return f"[{','.join(map(_leaf, value[:8]))}]"
    return str(value)


def _leaf(value: Any) -> str:
    return "…" if isinstance(value, dict | list) else _plain(value)


def _counted(tensors: Mapping[str, int]) -> str:
    return "tensors: " + ", ".join(f"{count:,} of {kind}" for kind, count in tensors.items())


def _when(started: Any, seconds: Any) -> str:
    try:
        when = datetime.fromtimestamp(started).strftime("%Y-%m-%d %H:%M:%S")
    except (TypeError, ValueError, OverflowError, OSError):
        return ""
    return f"{when}, {seconds_in_words(seconds)}" if isinstance(seconds, int | float) else when


def _cut(text: str, most: int = LONGEST) -> str:
    text = one_line(text)
    return text if len(text) <= most else f"{text[: most - 2]} …"
