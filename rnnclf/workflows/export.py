"""Writes a trained classifier as one ONNX file, which has answered as the classifier does before it gets its
name. Prints nothing."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rnnclf import __version__, checkpoint
from rnnclf.calibration import Calibration, measured
from rnnclf.errors import ConfigError, JobFailed, OutputError
from rnnclf.export.operators import OWN
from rnnclf.export.reading import FORMAT, SUFFIX, ExportedFile, described, refuse_missing_packages
from rnnclf.export.running import Runner
from rnnclf.export.step import refuse_names, refuse_streaming
from rnnclf.files import refuse_pipe, write_atomically
from rnnclf.hydra_app.compose import parsed
from rnnclf.hydra_app.setup import register
from rnnclf.metrics import Evaluation
from rnnclf.options import Options, as_typed, expected, option, types_of
from rnnclf.registry import did_you_mean
from rnnclf.workflows import machine
from rnnclf.workflows.export_check import Comparison, Sample, compared, sample_for
from rnnclf.workflows.exported import answered_by, options_of, without_temperature
from rnnclf.workflows.loading import Loaded, in_files, load_model, one_checkpoint, with_times_told
from rnnclf.workflows.runs import run_of

FREE_KEYS = ("dataset", "threads", "plugins")
"""What else can be set: where the data are now, threads, and the module of a cell of one's own."""
AS_EXPORTED = ("device=cpu", "precision=float32")  # what the file is compared with
SLACK = 10
"""By how much more than in the conformance claims the answers of a trained model may differ."""


@dataclass
class ExportOptions(Options):
    """What to write."""

    step: bool = option(False, "one step with its state, for answers while a sequence arrives")
    int8: bool = option(False, "weights of 8 bits, for a smaller file")
    operators: str = option(
        "scan",
        "scan: the step of the cell along time; own: ONNX's own operator, faster for single sequences",
        choices=("scan", "own"),
    )
    labels: bool = option(False, "also answer with the name of the most likely class")
    lengths: bool = option(False, "take the lengths of sequences even if those of the data are all alike")


@dataclass(frozen=True)
class Exported:
    """A file that was written, and how it compares with the classifier."""

    file: ExportedFile
    options: ExportOptions
    comparison: Comparison
    why_random: str
    """Why it was compared on random sequences; '' if on validation sequences."""
    float_size: int
    """Bytes of the file without int8."""
    runtime: str
    steps: int
    """A usual number of steps of a sequence."""

    @property
    def notes(self) -> tuple[str, ...]:
        found = []
        if self.options.int8 and self.file.size >= 0.6 * self.float_size:
            found.append("int8 saves little here: most of the file is not the weights of matrix products.")
        calibration = self.file.facts["calibration"]
        if self.options.int8 and calibration is not None and not calibration["scores"]:
            found.append(
                "Without validation sequences that are new to the model, it is not known how large the sets"
                " of an int8 file have to be: sets=, --sets and --abstain will be refused."
            )
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        found = self.comparison
        return {
            "path": str(self.file.path),
            "bytes": self.file.size,
            "float_bytes": self.float_size,
            "sha256": self.file.sha256,
            "options": asdict(self.options),
            "checked_on": "random" if self.why_random else "validation",
            "why_random": self.why_random,
            "runtime": self.runtime,
            "sequences": found.sequences,
            "difference": found.difference,
            "relative_difference": found.relative,
            "same_class": found.same,
            "accuracy": None
            if found.accuracies is None
            else dict(zip(("rnnclf", "file"), found.accuracies, strict=True)),
            "inputs": [asdict(port) for port in self.file.inputs],
            "outputs": [asdict(port) for port in self.file.outputs],
            "metadata": self.file.facts,
            "notes": self.notes,
        }


def export(path: Path, words: Sequence[str] = (), output: Path | None = None) -> Exported:
    """Writes the classifier of a run folder or checkpoint file to `output`, or beside it.

    `words` are ExportOptions and overrides of dataset, threads and plugins. Raises an RnnclfError for what
    the user can change, JobFailed if the file does not answer as the classifier does: then it is not written.
    """
    options, overrides = settings(words)
    file = one_checkpoint(path)
    refuse_missing_packages("rnnclf export")
    loaded = with_times_told(load_model(file, [*overrides, *AS_EXPORTED]))
    _refuse_impossible(options, loaded)
    target = output or file.parent / _usual_name(options)
    _refuse_target(target)
    machine.prepare(loaded.config)
    loaded.model.eval()
    sample = sample_for(loaded)
    facts = _facts(loaded, options)
    plain = described(target, _with_facts(_built(loaded, options, sample), facts))
    final = described(target, _in_int8(plain, facts)) if options.int8 else plain
    threads = torch.get_num_threads()
    runner = Runner(final, threads=threads)
    found = compared(loaded.model, loaded.learned, runner, sample)
    _refuse_different(target, loaded, found, options)
    facts |= {"check": _in_short(found, sample)}
    if options.int8:
        facts |= {"calibration": without_temperature(_of_int8(loaded, runner, sample))}
    final = described(target, _with_facts(final.content, facts))
    runtime = Runner(final, threads=threads).runtime  # what is written is what runs
    write_atomically(target, final.content)
    return Exported(final, options, found, sample.why_random, plain.size, runtime, sample.steps)


def settings(words: Sequence[str]) -> tuple[ExportOptions, list[str]]:
    """The options of the export, and the words for everything else. Raises ConfigError."""
    values, own = parsed(list(words)), {field.name for field in fields(ExportOptions)}
    for key, value in values.items():
        if key in own:
            if not isinstance(value, types_of(ExportOptions)[key]):
                raise ConfigError(f"{key} must be {expected(ExportOptions, key)}, got {as_typed(value)}.")
        elif key.split(".")[0] not in FREE_KEYS:
            hint = did_you_mean(key, (*own, *FREE_KEYS))
            raise ConfigError(
                f"'{key}' cannot be changed in an export: the checkpoint fixes it.{hint}"
                f" You can set {', '.join((*(f.name for f in fields(ExportOptions)), *FREE_KEYS))}."
            )
    plugins = values.get("plugins", [])
    register([str(name) for name in (plugins if isinstance(plugins, list) else [plugins])])
    options = ExportOptions(**{key: value for key, value in values.items() if key in own})
    return options, [word for word in words if word.split("=")[0] not in own]


def _usual_name(options: ExportOptions) -> str:
    return ("step" if options.step else "model") + (".int8" if options.int8 else "") + SUFFIX


def _refuse_impossible(options: ExportOptions, loaded: Loaded) -> None:
    """Raises ConfigError for options that this model cannot have."""
    cell = loaded.config.cell
    refuse_names(loaded.learned.preparation)
    if options.lengths and loaded.steps is not None:
        axes = loaded.config.axes
        raise ConfigError(
            f"lengths=true has no effect with axes={axes}, which reads sequences of one length."
        )
    if options.step:
        refuse_streaming(loaded.model.stack, loaded.learned.preparation)
    if options.operators == "scan":
        return
    if options.step:
        raise ConfigError("operators=own computes whole sequences: leave it out with step=true.")
    if cell.name not in OWN:
        known = ", ".join(OWN[:-1]) + f" and {OWN[-1]}"
        raise ConfigError(f"operators=own: ONNX has operators for {known}, but none for cell={cell.name}.")
    if loaded.model.stack.zoneout:
        raise ConfigError(
            "operators=own: ONNX's operators have no zoneout, with which this model was trained."
        )


def _refuse_target(target: Path) -> None:
    if target.is_dir():
        raise OutputError(f"{target} is a folder: give the name of a file, such as {target / 'model.onnx'}.")
    if target.suffix != SUFFIX:
        raise ConfigError(f"The name of the file must end in {SUFFIX}, got {target.name}.")
    if not target.parent.is_dir():
        raise OutputError(f"Cannot write {target}: the folder {target.parent} does not exist.")
    refuse_pipe(target)


def _built(loaded: Loaded, options: ExportOptions, sample: Sample) -> bytes:
    from rnnclf.export.step_file import step_model
    from rnnclf.export.whole import Answers, whole_model

    learned = loaded.learned
    answers = Answers(learned.classes, loaded.checkpoint.temperature, options.labels)
    if options.step:
        return _bytes(step_model(loaded.model, learned.preparation, answers))
    ragged, own = sample.ragged or options.lengths, options.operators == "own"
    built = whole_model(loaded.model, learned.preparation, answers, ragged=ragged, own_operators=own)
    return _bytes(built)


def _bytes(model: Any) -> bytes:
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _facts(loaded: Loaded, options: ExportOptions) -> dict[str, Any]:
    """The metadata of the file: what somebody needs who has nothing else."""
    header, learned = loaded.checkpoint.header, loaded.learned
    run = run_of(loaded.checkpoint.path)
    test = (run.read_results() if run else {}).get("test") or {}
    return {
        "rnnclf": __version__,
        "format": FORMAT,
        "kind": "step" if options.step else "sequences",
        "classes": list(learned.classes),
        "channels": list(learned.preparation.channels),
        "preparation": learned.preparation.to_plain(),
        "reading": loaded.checkpoint.reading,
        "dataset": options_of(loaded.config.dataset),
        "in_files": in_files(loaded.config.dataset),
        "training_data": learned.training.to_plain(),
        "final_fit": loaded.config.final_fit,
        "cell": loaded.config.cell.name,
        "hidden": loaded.config.cell.hidden_size,
        "temperature": loaded.checkpoint.temperature,
        "int8": options.int8,
        "checkpoint": checkpoint.describe(loaded.checkpoint.path).sha256,
        "epoch": loaded.checkpoint.epoch,
        **({} if loaded.steps is None else {"steps": loaded.steps}),
        "fingerprint": loaded.checkpoint.fingerprint,
        "calibration": without_temperature(loaded.checkpoint.calibration),
        "metrics": header.get("metrics", {}),
        "test": {key: test[key] for key in ("accuracy", "interval95", "total") if key in test},
    }


def _with_facts(content: bytes, facts: dict[str, Any]) -> bytes:
    """The content of a file with these metadata, each a JSON text."""
    import onnx

    model = onnx.ModelProto()
    model.ParseFromString(content)
    del model.metadata_props[:]
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key = key
        entry.value = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return _bytes(model)


def _in_int8(file: ExportedFile, facts: dict[str, Any]) -> bytes:
    """The file with weights of 8 bits where they are in matrix products, also in those of each step.

    Both options at once: per_channel alone saturates on processors without VNNI, and costs 0.4 % of accuracy.
    """
    import logging

    from onnxruntime.quantization import QuantType, quantize_dynamic

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises steps that are of no use here
    try:
        with tempfile.TemporaryDirectory(prefix="rnnclf-") as folder:
            source, result = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
            source.write_bytes(file.content)
            quantize_dynamic(
                source,
                result,
                weight_type=QuantType.QInt8,
                per_channel=True,
                reduce_range=True,
                extra_options={"EnableSubgraph": True},
            )
            return _with_facts(result.read_bytes(), facts)
    finally:
        logging.disable(before)


def _of_int8(loaded: Loaded, runner: Runner, sample: Sample) -> Calibration | None:
    """The calibration of a file of 8 bits, whose probabilities are not those of the model: measured on the
    validation sequences of the sample, without scores if there are none or the model was trained on them."""
    known = loaded.checkpoint.calibration
    if known is None or loaded.config.final_fit or sample.why_random:
        return known and known.without_scores()
    logits_NK = np.concatenate([answered_by(runner, batch) for batch in sample.batches])
    y_N = np.concatenate([batch.labels_B for batch in sample.batches if batch.labels_B is not None])
    return measured(
        Evaluation(loaded.learned.classes, y_N, logits_NK, np.arange(len(y_N)), None, known.temperature)
    )


def _refuse_different(target: Path, loaded: Loaded, found: Comparison, options: ExportOptions) -> None:
    """Raises JobFailed if a file does not answer as the classifier does. One of 8 bits may, its accuracy is
    told; but not with NaN."""
    most = float("inf") if options.int8 else SLACK * loaded.config.cell.export_tolerance
    if not found.relative < most:
        raise JobFailed(
            f"{target} was not written: of {found.sequences} sequences, a logit of the file differs by"
            f" {found.difference:.2g} from that of rnnclf, of which the largest is {found.largest:.2g}."
        )


def _in_short(found: Comparison, sample: Sample) -> dict[str, Any]:
    return {
        "on": "random" if sample.why_random else "validation",
        "sequences": found.sequences,
        "difference": found.difference,
        "same_class": found.same,
    }
