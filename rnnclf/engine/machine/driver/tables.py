"""The tables through which Python tells the driver where everything is.

A table is a row of 64-bit integers in memory. Each kind is a named tuple: Python fills one with numbers and
`stored` writes it to memory; in the driver, `DriverFunction.record` loads the row and gives back the same
named tuple, with LLVM values in its fields. So a field cannot have one position for the writer and another
for the reader:

    class Span(NamedTuple):          Python:  stored([Span(array.ctypes.data, array.nbytes)])
        begin: Any                   driver:  span = function.record(Span, address); span.begin
        length: Any

Unless its comment says otherwise, a field is an address or a distance in bytes. A name that ends in `_t`,
`_row` or `_column` is the distance from one time step, row or column to the next. Rows are sequences of a
part of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Table = Any  # a numpy array of int64, a row for each record


class Span(NamedTuple):
    """Memory to fill with zeros."""

    begin: Any
    length: Any


class Copy(NamedTuple):
    """Columns to copy from one (time, row, column) array to another, at the valid steps of each sequence."""

    source: Any
    source_t: Any
    source_row: Any
    target: Any
    target_t: Any
    target_row: Any
    width: Any
    reverse: Any  # 1: step t is copied to step length - 1 - t
    add: Any  # 1: adds to what is there
    factors: Any  # what to multiply by; 0: nothing
    factors_t: Any
    factors_row: Any
    factors_reverse: Any  # 1: step t is multiplied by the factors of step length - 1 - t


class Move(NamedTuple):
    """A block of gradients, to be copied from where the cells sum them up to where the optimizer finds
    them."""

    source: Any
    source_row: Any
    source_column: Any
    rows: Any  # number
    columns: Any  # number
    target: Any
    target_row: Any
    target_column: Any


class Run(NamedTuple):
    """One direction of one layer: what to call, and what to copy first.

    inputs: the outputs of the layer below to copy into the operands. d_outputs: the gradients to copy from
    the layer above.
    """

    inputs: Any
    input_count: Any
    forward: Any
    forward_arguments: Any
    d_outputs: Any
    d_output_count: Any
    backward: Any  # 0: nothing below or in this layer is trained
    backward_arguments: Any


class Readout(NamedTuple):
    """Some columns of the top layer's outputs, and how they are reduced over time; see driver_readouts.py."""

    kind: Any
    y: Any
    y_t: Any
    y_row: Any
    width: Any
    features: Any
    d_features: Any
    dy: Any
    dy_t: Any
    dy_row: Any


class Shared(NamedTuple):
    """What all parts of a batch share: data, packed weights, head, loss."""

    counters: Any
    parts: Any  # number
    learns: Any  # 0: a step ends with the loss
    x: Any
    x_is_bytes: Any  # 1: the raw values are bytes, 0: float32
    x_t: Any
    starts: Any  # of the first step of each sequence, counted in steps
    labels: Any
    chosen: Any  # the sequences of the batch, part by part
    batch: Any  # number of sequences
    inputs: Any  # number of features
    shift: Any
    scale: Any
    packs: Any
    pack_count: Any
    classes: Any  # number
    features: Any  # number of columns that the head reads
    features_row: Any
    head: Any
    head_backward: Any
    bias: Any
    z_row: Any
    class_weights: Any
    smoothing: Any


class Part(NamedTuple):
    """One part of a batch, which one thread computes."""

    shared: Any
    number: Any
    first: Any  # position in `chosen` of its first sequence
    rows: Any  # number
    steps: Any  # number of time steps of the batch's longest sequence
    lengths: Any  # number of steps of each sequence, the longest first
    running: Any  # for each step the number of sequences that reach it
    x: Any
    x_t: Any
    x_row: Any
    runs: Any
    run_count: Any
    readouts: Any
    readout_count: Any
    features: Any
    d_features: Any
    factors: Any  # what to multiply the features by; 0: nothing
    factors_row: Any
    z: Any
    zeros: Any
    zero_count: Any
    head_sums: Any
    bias_sums: Any
    totals: Any  # loss and number of correct predictions, float64
    job: Any  # number of the batch, from 1; written by the driver


class Reduction(NamedTuple):
    """The results of all parts, and where their sums go."""

    totals: Any
    parts: Any  # number
    learns: Any
    sums: Any
    sums_part: Any
    moves: Any
    move_count: Any
    gradients: Any
    gradients_length: Any
    is_complete: Any  # 1: no gradient needs torch, so that they can be clipped at once
    max_norm: Any
    norm: Any


def stored(records: Sequence[NamedTuple]) -> Table:
    """Writes records of one kind to memory, one after the other. The array must be kept alive."""
    return np.array([[int(field) for field in record] for record in records], np.int64)


def address_of(array: Any) -> int:
    """Where an array begins. Five times as fast as `array.ctypes.data`."""
    address: int = array.__array_interface__["data"][0]
    return address
