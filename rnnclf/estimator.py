"""RNNClassifier: a scikit-learn estimator with the options of the command line.

Shapes: N sequences, T steps, C channels, K classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import assert_all_finite
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d, validate_data

from rnnclf.data.memory import LongFrame, as_classes, as_polars, is_frame, labels_in, name_of, recordings_in
from rnnclf.data.recordings import Recordings, numbered
from rnnclf.data.table import Table
from rnnclf.errors import ConfigError, DataError, RnnclfError
from rnnclf.hydra_app.keywords import config_from, in_python, keywords_of, refuse_unknown, typed
from rnnclf.registry import did_you_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rnnclf.config import Config
    from rnnclf.model import SequenceClassifier
    from rnnclf.workflows.fitting import Classifier

LAYOUTS = ("channels_last", "channels_first")


class WordError(ConfigError, ValueError):
    """A keyword of RNNClassifier is not valid."""


class InputError(DataError, ValueError):
    """X or y is not valid."""


class RNNClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A recurrent sequence classifier, trained as `rnnclf train` does it.

    Each keyword is a word of the command line with the same meaning and default; two underscores stand for
    a dot: `optimizer__lr=0.01`, `cell__forget_bias=2`. `rnnclf list` and `rnnclf show cell lstm` print
    the choices. fit sets a stratified part of the sequences aside (`validation`, a number or a share), and
    keeps the weights of the epoch with the best accuracy on it.

    Args:
        missing: error, mask, interpolate or drop: how missing values (NaN) are treated.
        normalise: standard, minmax, robust, quantiles or none: each channel, by the training part alone.
        layout: channels_last for arrays (N, T, C), channels_first for (N, C, T).
        id, time, label, channels: columns of a data frame with a row for each step. id tells sequences apart
            and is required; time orders the steps of each; label holds the classes, if y does not; channels
            defaults to all other columns of numbers.

    Attributes:
        classes_: the labels, sorted, (K,).
        n_features_in_: channels; for arrays (N, T), T.
        history_: losses, accuracies and the learning rate of each epoch, as in epochs.csv.
        model_: the SequenceClassifier, a torch module, on the CPU.
        config_: the Config used in training. notes_: remarks on the data, as sentences.

    Raises a ValueError if a keyword, X or y is not valid. It is an RnnclfError, too, unless a check of
    scikit-learn's raised it.
    """

    def __init__(
        self,
        *,
        cell: str = "basic",
        hidden: int = 150,
        axes: str = "steps",
        layers: int = 1,
        bidirectional: bool = False,
        readout: str = "last",
        readout_layers: str = "top",
        residual: bool = False,
        norm: str = "none",
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        variational: bool = False,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        match_parameters: int | float | str | None = None,
        optimizer: str = "adam",
        schedule: str = "onecycle",
        epochs: int = 20,
        updates: int | None = None,
        patience: int | str | None = None,
        max_time: str | None = None,
        batch_size: int = 150,
        select: str = "best",
        final_fit: bool = False,
        clip: float | None = 1.0,
        label_smoothing: float = 0.0,
        class_weights: str = "none",
        focal: float = 0.0,
        sampling: str = "shuffled",
        augment: str = "none",
        average: str = "none",
        on_divergence: str = "stop",
        init: str | None = None,
        freeze: str = "none",
        seed: int = 0,
        device: str = "auto",
        threads: int | str = "auto",
        engine: str = "auto",
        precision: str = "float32",
        graph: bool = True,
        plugins: Sequence[str] = (),
        validation: float = 0.15,
        missing: str = "error",
        normalise: str = "standard",
        layout: str = "channels_last",
        id: str | None = None,
        time: str | None = None,
        label: str | None = None,
        channels: Sequence[str] | None = None,
        **words: Any,
    ) -> None:
        given = {**locals(), **words}
        for name in _KEYWORDS:
            setattr(self, name, given[name])
        self._words: dict[str, Any] = {}
        self._set_words(words)

    def _set_words(self, words: Mapping[str, Any]) -> None:
        with _errors_of_python():
            for name in words:
                refuse_unknown(name, _KEYWORDS)
        self._words |= words

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """All keywords with their values; those with two underscores only if they were given."""
        return {name: getattr(self, name) for name in _KEYWORDS} | self._words

    def set_params(self, **params: Any) -> Self:
        """Changes keywords, for the next fit. Raises ConfigError for an unknown one."""
        self._set_words({name: value for name, value in params.items() if name not in _KEYWORDS})
        for name in params.keys() & _KEYWORDS.keys():
            setattr(self, name, params[name])
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = self.missing != "error"
        return tags

    def fit(self, X: Any, y: Any = None) -> Self:
        """Trains on labelled sequences.

        Args:
            X: an array (N, T, C), or (N, T) of one channel; a list of arrays (T, C) or (T,), which may have
                different lengths; or, with `id`, a data frame of polars or pandas with a row for each step.
            y: N labels: numbers, texts or other hashable values; of a data frame in the order in which its
                ids come first, None where `label` names a column.
        """
        from rnnclf.console.notebook import notebook_bar
        from rnnclf.workflows.fitting import fit_in_memory

        self.__dict__.pop("_classifier", None)
        self._columns: int | None = None
        with _errors_of_python():
            config = self._config()
            recordings, y = self._read(X, y, reset=True)
            labels = labels_in(_labels(y))
            with notebook_bar() as watch:
                trained = fit_in_memory(config, labels.of(recordings), labels.plain, watch)
            self._take(trained, labels.values_K)
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each sequence, (N,). X as in `fit`; lengths may differ from training.

        If the model was trained on a table, X may be a data frame with its columns, read by their names.
        """
        place_N = self._logits(X).argmax(axis=1)
        predicted: NDArray[Any] = self.classes_[place_N]
        return predicted

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """The probability of each class, (N, K), in the order of `classes_`, at the temperature that was
        fitted on the validation part. It changes no predicted class; `model_` gives logits without it."""
        from rnnclf.calibration import probabilities

        proba_NK: NDArray[np.float64] = probabilities(self._logits(X), self._classifier.temperature)
        return proba_NK

    def predict_sets(self, X: Any, level: float = 0.95) -> NDArray[np.bool_]:
        """Which classes are likely, (N, K), columns as in `classes_`: a share `level` of these sets contains
        the true class, on average over sequences like those of the validation part; some may be empty.

        With `final_fit` that is approximate: it was measured with the model before the final fit. Raises
        ConfigError if the validation part had too few sequences for the level.
        """
        from rnnclf.calibration import class_sets, level_of

        probability_NK = self.predict_proba(X)
        with _errors_of_python():
            limit = self._classifier.limit_of_sets(level_of(level, "level"), f"level={level}")
        found: NDArray[np.bool_] = class_sets(probability_NK, limit)
        return found

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """The share of the sequences that are classified correctly.

        Labels are compared by their names, so that 7 is the class '7' of a model that the command line
        trained. For a data frame y may be None, as in `fit`.
        """
        check_is_fitted(self)
        with _errors_of_python():
            if y is None and self.id is not None and is_frame(X):
                y = self._frame(X).labels()
            if y is None:
                raise InputError("score requires y to be passed, but the target y is None.")
            true = [name_of(label) for label in _labels(y)]
        predicted = [name_of(label) for label in self.predict(X).tolist()]
        return float(accuracy_score(true, predicted, sample_weight=sample_weight))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a checkpoint, which `load` and `rnnclf eval` read. Raises OutputError."""
        check_is_fitted(self)
        self._classifier.save(Path(path))

    @property
    def history_(self) -> list[dict[str, Any]]:
        return [dict(epoch) for epoch in self._fitted("history_").history]

    @property
    def model_(self) -> SequenceClassifier:
        return self._fitted("model_").model

    @property
    def config_(self) -> Config:
        return self._fitted("config_").config

    @property
    def notes_(self) -> tuple[str, ...]:
        return self._fitted("notes_").notes

    def _fitted(self, name: str) -> Classifier:
        if "_classifier" not in vars(self):
            raise AttributeError(f"This RNNClassifier has no '{name}' yet: fit it first.")
        return self._classifier

    def __sklearn_is_fitted__(self) -> bool:
        return "_classifier" in vars(self)

    def _take(self, classifier: Classifier, labels: Sequence[Any]) -> None:
        """Adopts a trained classifier and the labels of its classes."""
        values = as_classes(labels)
        try:
            order_K = np.argsort(values, kind="stable")
        except TypeError:  # of labels that cannot be compared: by their names
            order_K = np.arange(len(values))
        self.classes_ = values[order_K]
        self._columns_K = order_K
        self._classifier = classifier

    def _config(self) -> Config:
        """The Config of the same words on the command line. Raises ConfigError."""
        if self.layout not in LAYOUTS:
            hint = did_you_mean(str(self.layout), LAYOUTS)
            raise WordError(f"layout must be {' or '.join(LAYOUTS)}, got '{self.layout}'.{hint}")
        of_x = {"layout", "id", "time", "label", "channels"}
        words = {name: value for name, value in self.get_params().items() if name not in of_x}
        from rnnclf.workflows.pretrained import continued

        return continued(config_from(words, _KEYWORDS), typed(words, _KEYWORDS))

    def _logits(self, X: Any) -> NDArray[np.float32]:
        """Logits (N, K), in the order of `classes_`."""
        check_is_fitted(self)
        with _errors_of_python():
            channels = self._classifier.learned.preparation.channels
            recordings, _ = self._read(X, None, reset=False)
            if len(recordings.channels) != len(channels):
                raise InputError(
                    f"X has {len(recordings.channels)} channels; the model was trained on {len(channels)}."
                )
            where = self._where(self._classifier.config)
            logits_NK: NDArray[np.float32] = self._classifier.logits(recordings, where)
        return logits_NK[:, self._columns_K]

    def _where(self, config: Config) -> Config:
        """The config with the current keywords device and threads."""
        now = config_from({"device": self.device, "threads": self.threads}, _KEYWORDS)
        return replace(config, device=now.device, threads=now.threads)

    def _read(self, X: Any, y: Any, reset: bool) -> tuple[Recordings, Any]:
        """The sequences of X and, in training, their labels. Raises DataError."""
        if is_frame(X) and self.id is not None:
            frame = self._frame(X)
            recordings = frame.recordings()
            y = frame.labels() if y is None and reset else y
        elif is_frame(X) and not reset and self._classifier.learned.training.columns:
            recordings = Table().read_frame(as_polars(X), self._classifier.learned)
        else:
            recordings = recordings_in(self._array(X, reset), self.layout == "channels_first")
        if reset and y is None:
            raise InputError("RNNClassifier requires y to be passed, but the target y is None.")
        if reset and self._columns is None:
            self.n_features_in_ = len(recordings.channels)
        return recordings, y

    def _frame(self, X: Any) -> LongFrame:
        channels = self.channels
        if channels is None and self.__sklearn_is_fitted__():
            learned = self._classifier.learned.preparation.channels
            channels = None if learned == numbered(len(learned)) else learned
        named = None if channels is None else tuple(channels)
        return LongFrame(X, str(self.id), self.time, self.label, named)

    def _array(self, X: Any, reset: bool) -> Any:
        """X, checked by scikit-learn if it is an array; a list of sequences is returned unchanged."""
        if isinstance(X, list | tuple) and not X:
            raise InputError("X has no sequences.")
        if _is_list_of_sequences(X):
            return list(X)
        numbers = {"dtype": "numeric", "ensure_all_finite": "allow-nan"}
        if getattr(X, "ndim", 2) == 2:
            same = reset or self._columns is not None
            X = validate_data(self, X, reset=reset, **numbers) if same else check_array(X, **numbers)
            self._columns = X.shape[1] if reset else self._columns
            return X
        return check_array(X, allow_nd=True, **numbers)


_PARAMETERS = signature(RNNClassifier).parameters.values()
_KEYWORDS = {parameter.name: parameter.default for parameter in _PARAMETERS if parameter.name != "words"}
"""The keywords that have a default."""


def load(path: str | os.PathLike[str], plugins: Sequence[str] = ()) -> RNNClassifier:
    """Loads the classifier of a checkpoint file, or the best one of a run folder.

    Args:
        plugins: modules with components of your own.

    A model saved in Python gets its original labels back if they are numbers or strings; those of a model
    trained on the command line are the names of its classes. Raises CheckpointError.
    """
    from rnnclf.workflows.fitting import load_classifier

    classifier, labels = load_classifier(Path(path), plugins)
    model = RNNClassifier(**keywords_of(classifier.config, _KEYWORDS))
    model._take(classifier, labels)
    model._columns = None
    model.n_features_in_ = len(classifier.learned.preparation.channels)
    return model


def _is_list_of_sequences(X: Any) -> bool:
    """Whether X is a list of arrays, a list of nested lists, or a list of lists of different lengths."""
    if isinstance(X, np.ndarray):
        return X.dtype == object and X.ndim == 1 and len(X) > 0 and np.ndim(X[0]) > 0
    if not isinstance(X, list | tuple) or not X:
        return False
    if all(hasattr(part, "ndim") and part.ndim > 0 for part in X):
        return True
    lengths = {len(part) if isinstance(part, list | tuple) else None for part in X}
    nested = isinstance(X[0], list | tuple) and bool(X[0]) and isinstance(X[0][0], list | tuple)
    return None not in lengths and (nested or len(lengths) > 1)


def _labels(y: Any) -> list[Any]:
    """y as a list (N,). Raises ValueError if it is not one-dimensional, or holds continuous numbers."""
    kinds = {type(label) for label in y} if isinstance(y, list | tuple) else set()
    if len(kinds) > 1 or kinds & {tuple, type(None)}:  # which would become texts, or several columns
        return list(y)
    array = column_or_1d(y, warn=True)
    if array.dtype.kind == "f":
        assert_all_finite(array, input_name="y")
        check_classification_targets(array)
    return list(array)


@contextmanager
def _errors_of_python() -> Iterator[None]:
    """Spells keywords in messages as in Python, and turns errors about keywords and data into ValueErrors."""
    try:
        yield
    except (WordError, InputError):
        raise
    except RnnclfError as error:
        text = in_python(str(error))
        if isinstance(error, ConfigError):
            raise WordError(text) from error
        if isinstance(error, DataError):
            raise InputError(text.replace("values are missing", "values are missing (NaN)")) from error
        raise type(error)(text) from error
