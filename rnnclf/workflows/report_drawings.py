"""The mistakes of a run, drawn from its data. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rnnclf.data.layout import PictureLayout
from rnnclf.data.recordings import Array
from rnnclf.data.splits import divide
from rnnclf.data.survey import digests
from rnnclf.errors import CheckpointError
from rnnclf.report.document import DrawnMistake, Gallery
from rnnclf.report.drawing import CHANNELS, picture_url, series_svg
from rnnclf.report.theme import IN_A_PAGE, SERIES
from rnnclf.workflows.judged import Wrong
from rnnclf.workflows.loading import load_model
from rnnclf.workflows.mistakes import common_scale, place_of
from rnnclf.workflows.runs import RunFolder


def undrawn(wrong: Sequence[Wrong]) -> Gallery:
    """The mistakes in words alone."""
    return Gallery(
        tuple(
            DrawnMistake(
                str(each.id), "", each.label, each.predicted, each.probability, each.probability_of_label
            )
            for each in wrong
        )
    )


def drawn(run: RunFolder, wrong: Sequence[Wrong], words: Sequence[str]) -> Gallery:
    """The mistakes of a run on its test split with drawings of the sequences.

    words: overrides for the data, which may be elsewhere by now, and plugins.
    Raises an RnnclfError if the data cannot be read, CheckpointError if they have changed.
    """
    loaded = load_model(run.best, list(words))
    source = loaded.config.dataset
    recordings = source.recordings_for(loaded.learned)
    if digests(recordings).fingerprint(recordings) != loaded.checkpoint.fingerprint:
        raise CheckpointError("the data have changed since the training")
    places_N = divide(recordings, source.plan())["test"]
    numbers = [int(places_N[each.row]) for each in wrong]
    values = [recordings.sequence(number) for number in numbers]
    places = [place_of(recordings, number) for number in numbers]
    gallery = undrawn(wrong)
    layout = source.layout()
    if layout is not None:
        pictures = [_picture(x_TC, layout) for x_TC in values]
        mistakes = [
            replace(mistake, place=place, picture=picture)
            for mistake, place, picture in zip(gallery.mistakes, places, pictures, strict=True)
        ]
        return Gallery(tuple(mistakes))
    scales = [common_scale([x_TC[:, c] for x_TC in values]) for c in range(min(CHANNELS, values[0].shape[1]))]
    longest = max(map(len, values))
    mistakes = [
        replace(mistake, place=place, series=series_svg(x_TC, scales, longest, "the sequence as lines"))
        for mistake, place, x_TC in zip(gallery.mistakes, places, values, strict=True)
    ]
    names = recordings.channels[: len(scales)]
    return Gallery(tuple(mistakes), tuple(zip(names, map(IN_A_PAGE.__getitem__, SERIES), strict=False)))


def _picture(x_TC: Array, layout: PictureLayout) -> str:
    light_HWC = layout.picture(x_TC)
    if light_HWC.shape[2] not in (1, 3):
        light_HWC = light_HWC.mean(axis=2, keepdims=True)
    return picture_url(light_HWC)
