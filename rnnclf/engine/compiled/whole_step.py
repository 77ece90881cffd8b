"""A training step of a whole classifier in machine code.

Layers of one cell, the last output of the top one, a linear head, cross-entropy: each core takes its part of
a batch from the sequences to the gradients.

Shapes: T time, B batch, N sequences of a part, I inputs, H hidden, C classes, Q parts; P, G, K, R and S as in
rnnclf/engine/compiled/kernels.py.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from rnnclf.engine.compiled.kernels import (
    add,
    address_of,
    fill_zeros,
    inlined,
    inner,
    jit,
    lanes_of,
    overload_for,
    pack,
    product,
    product_of_many,
    product_over_rows,
    unpack,
)
from rnnclf.engine.compiled.recurrence import (
    basic_back,
    basic_steps,
    gru_back,
    gru_steps,
    lstm_back,
    lstm_steps,
)
from rnnclf.engine.compiled.workers import ARRIVED, LAST_JOB, POSTED, advance, load_acquire, wait_for


class BasicPlace(NamedTuple):
    """Where a part of a batch is computed. dz_TBG: where the gradients of the sums come to be."""

    a_SBK: Any
    sums_BP: Any
    dz_TBG: Any
    dh_BP: Any
    running_T: Any
    at: Any
    relu: bool


class LSTMPlace(NamedTuple):
    a_SBK: Any
    c_SBP: Any
    dz_TBG: Any
    dh_BP: Any
    dc_BP: Any
    running_T: Any
    at: Any


class GRUPlace(NamedTuple):
    a_SBK: Any
    dz_TBG: Any
    dh_BP: Any
    running_T: Any
    at: Any


def _ahead(place: Any, weights: Any) -> None:
    """All steps in time forward, inside compiled code."""
    raise NotImplementedError("_ahead is for compiled code.")


def _back(place: Any, weights: Any, dy_TBH: Any, sums: Any) -> None:
    """All steps in time backward, inside compiled code, from the gradients of the last state and of all
    outputs, where there are any; adds those of the weights."""
    raise NotImplementedError("_back is for compiled code.")


def _basic_ahead(place: Any, weights: Any) -> None:
    basic_steps(place.a_SBK, place.at, place.sums_BP, weights[0], place.running_T, False, place.relu)


def _basic_back(place: Any, weights: Any, dy_TBH: Any, sums: Any) -> None:
    basic_back(
        place.a_SBK, place.at, place.dz_TBG, weights[1], place.running_T, False, place.relu, dy_TBH,
        place.dh_BP, sums[0],
    )  # fmt: skip


def _lstm_ahead(place: Any, weights: Any) -> None:
    lstm_steps(place.a_SBK, place.at, place.c_SBP, place.dz_TBG, weights[0], place.running_T, False)


def _lstm_back(place: Any, weights: Any, dy_TBH: Any, sums: Any) -> None:
    fill_zeros(place.dc_BP)
    lstm_back(
        place.a_SBK, place.at, place.c_SBP, place.dz_TBG, weights[1], place.running_T, False, dy_TBH,
        place.dh_BP, place.dc_BP, sums[0],
    )  # fmt: skip


def _gru_ahead(place: Any, weights: Any) -> None:
    gru_steps(place.a_SBK, place.at, place.dz_TBG, weights[:3], place.running_T, False)


def _gru_back(place: Any, weights: Any, dy_TBH: Any, sums: Any) -> None:
    gru_back(
        place.a_SBK, place.at, place.dz_TBG, weights[3], place.running_T, False, dy_TBH, place.dh_BP,
        sums[0], sums[1], sums[2],
    )  # fmt: skip


_WAYS = {
    BasicPlace: (_basic_ahead, _basic_back),
    LSTMPlace: (_lstm_ahead, _lstm_back),
    GRUPlace: (_gru_ahead, _gru_back),
}


@overload_for(_ahead, "always")
def _ahead_of(place: Any, weights: Any) -> Any:
    return _WAYS[place.instance_class][0]


@overload_for(_back, "always")
def _back_of(place: Any, weights: Any, dy_TBH: Any, sums: Any) -> Any:
    return _WAYS[place.instance_class][1]


class Sequences(NamedTuple):
    """Whole sequences as they were read, bytes or float32, and what makes a model's inputs of them:
    (x - shift) / scale. Sequence n is bytes_RTI[row_N[n]] or, where there are no bytes, floats_RTI[row_N[n]]:
    the code is made once for both. chosen_B: those of the batch."""

    bytes_RTI: Any
    floats_RTI: Any
    row_N: Any
    y_N: Any
    shift_I: Any
    scale_I: Any
    chosen_B: Any


class PackedWeights(NamedTuple):
    """What `pack` needs of all parameters, and `unpack` of their gradients."""

    pack_N9: Any
    parameters: Any
    matrices_M3: Any
    unpack_N9: Any
    gradients: Any
    sums_M2: Any


class Head(NamedTuple):
    """The linear head and the loss: matrices for products, the weight of each class, label smoothing."""

    ahead: Any
    back: Any
    weight_C: Any
    smoothing: float


class Shared(NamedTuple):
    """What those who work on the parts of a batch share. counters: see `wait_for`; size: how many they are;
    learns: whether gradients are wanted; weights: of each layer its matrices, the last of which leads from
    the gradients of its sums to those of its inputs."""

    counters: Any
    size: int
    learns: bool
    data: Any
    packed: Any
    weights: Any
    head: Any


class Result(NamedTuple):
    """What all parts come to, of which the first becomes that of all: the gradients of all matrices, one
    behind the other, losses and right answers; and the gradients of all parameters, in the same way; a place
    for sums of their squares."""

    sums_QM: Any
    found_Q2: Any
    gradients_W: Any
    squares_8: Any


class Layer(NamedTuple):
    """A layer's share of a part: where it is computed; how many of the columns of its sums there lead to its
    inputs; what the gradients of its weights come to; the gradients of its outputs, with no places for them
    in the top layer."""

    place: Any
    columns: int
    sums: Any
    dy_TBH: Any


class Part(NamedTuple):
    """A part of a batch: its number, the first of its sequences, its layers, logits, which become their
    gradients; what it comes to: the gradients of the head, and those of all matrices, one behind the other;
    the sum of its losses, and of its correct predictions."""

    number: int
    first: int
    layers: Any
    z_NC: Any
    head_sums: Any
    sums_M: Any
    found: Any


@inlined
def _gather(data: Any, first: int, at: Any, a_SBK: Any) -> None:
    """Lays the inputs into the operands of the lowest layer."""
    begin = at.first - at.inputs - 1
    for n in range(a_SBK.shape[1]):
        row = data.row_N[data.chosen_B[first + n]]
        if len(data.bytes_RTI):
            _prepare(data.bytes_RTI, row, data.shift_I, data.scale_I, a_SBK, n, begin)
        else:
            _prepare(data.floats_RTI, row, data.shift_I, data.scale_I, a_SBK, n, begin)


@inlined
def _rows(a_TBG: Any) -> Any:
    return a_TBG.reshape(-1, a_TBG.shape[2])


@inner
def _copy_states_up(below_SBK: Any, first: int, a_SBK: Any, at: Any) -> None:
    """Lays the states of the layer below, which begin at `first`, into the operands of this one."""
    begin = at.first - at.inputs - 1
    for t in range(len(a_SBK) - 1):
        for n in range(a_SBK.shape[1]):
            for i in range(at.inputs):
                a_SBK[t, n, begin + i] = below_SBK[t + 1, n, first + i]


@inner
def _prepare(x_RTI: Any, row: int, shift_I: Any, scale_I: Any, a_SBK: Any, n: int, begin: int) -> None:
    """Lays a sequence there: within whole arrays, since a view of each row takes as long as the row."""
    for t in range(x_RTI.shape[1]):
        for i in range(x_RTI.shape[2]):
            a_SBK[t, n, begin + i] = (a_SBK.dtype.type(x_RTI[row, t, i]) - shift_I[i]) / scale_I[i]


@inlined
def _loss_and_gradients(data: Any, first: int, head: Any, z_NC: Any, found: Any, learns: bool) -> None:
    """Cross-entropy and correct predictions of logits, which become their gradients if the step learns.
    A loss too large for their type is infinite."""
    classes, total = len(head.weight_C), 0.0
    for b in range(len(data.chosen_B)):
        total += head.weight_C[data.y_N[data.chosen_B[b]]]
    loss, right = 0.0, 0
    for n in range(len(z_NC)):
        z_C, y = z_NC[n], data.y_N[data.chosen_B[first + n]]
        best = 0
        for c in range(1, classes):
            if z_C[c] > z_C[best]:
                best = c
        right += best == y
        top, whole, all_wanted = np.float64(z_C[best]), 0.0, 0.0
        for c in range(classes):
            whole += math.exp(z_C[c] - top)
            all_wanted += _wanted(head, c, y)
        for c in range(classes):
            wanted, z = _wanted(head, c, y), z_C[c] - top
            loss += wanted * (math.log(whole) - z)
            if learns:
                z_C[c] = (all_wanted * math.exp(z) / whole - wanted) / total
    found[0], found[1] = z_NC.dtype.type(loss) / total, right


@inner
def _wanted(head: Any, c: int, y: int) -> float:
    """The weight of a class in the loss of a sequence of class y."""
    share = head.smoothing / len(head.weight_C) + (1.0 - head.smoothing if c == y else 0.0)
    return np.float64(head.weight_C[c if head.smoothing > 0 else y] * share)


@inlined
def _work(shared: Any, part: Any, job: int) -> None:
    """One part from its sequences to the gradients of the weights, or to the loss."""
    data, head, layers, z_NC = shared.data, shared.head, part.layers, part.z_NC
    top, at, zero = layers[-1].place, layers[-1].place.at, z_NC.dtype.type(0)
    packed = shared.packed
    pack(packed.pack_N9, packed.parameters, packed.matrices_M3, z_NC.itemsize, zero, part.number, shared.size)
    _gather(data, part.first, layers[0].place.at, layers[0].place.a_SBK)
    advance(shared.counters, ARRIVED, 1)
    wait_for(shared.counters, ARRIVED, (2 * job - 1) * shared.size)  # all weights are packed out
    below = layers[0].place
    for n in range(len(layers)):
        place = layers[n].place
        if n > 0:
            _copy_states_up(below.a_SBK, below.at.first, place.a_SBK, place.at)
        _ahead(place, shared.weights[n])
        below = place
    last_BK = top.a_SBK[-1]
    product(last_BK[:, at.first - 1 : at.first + at.hidden], head.ahead, 1 + at.hidden, z_NC, 0)
    _loss_and_gradients(data, part.first, head, z_NC, part.found, shared.learns)
    if shared.learns:
        fill_zeros(part.sums_M.reshape(1, -1))
        product(z_NC[:, : len(head.weight_C)], head.back, len(head.weight_C), top.dh_BP, 0)
        layer = layers[-1]
        for n in range(len(layers) - 1, -1, -1):
            weights = shared.weights[n]
            _back(layer.place, weights, layer.dy_TBH, layer.sums)
            if n > 0:
                above, layer = layer, layers[n - 1]
                dz_RG = _rows(above.place.dz_TBG)[:, : above.columns]
                product_of_many(dz_RG, weights[-1], _rows(layer.dy_TBH))
                fill_zeros(layer.place.dh_BP)
        a_NK = last_BK[:, at.first - lanes_of(z_NC) :]
        sums_CK = part.head_sums[:, :]  # of the type of those of the layers: the code is made once for both
        product_over_rows(z_NC[:, : len(head.weight_C)], a_NK, sums_CK)
    advance(shared.counters, ARRIVED, 1)


@jit
def work_on_part(shared: Any, part: Any, result: Any, longest: float, leads: bool) -> float:
    """Works on a part of each batch until there are no more, or, who leads, on one batch: posts it, and when
    all have come by brings the gradients to where they belong.

    Both are one function, since making its machine code takes seconds. Returns, to who leads, the norm of the
    gradients, which are shortened if it is larger than `longest`; NaN if there is nothing to learn from.
    """
    if leads:
        job = load_acquire(address_of(shared.counters) + 8 * POSTED) + 1
        advance(shared.counters, POSTED, 1)
    else:
        job = 1
    while leads or wait_for(shared.counters, POSTED, job) < LAST_JOB:
        _work(shared, part, job)
        if leads:
            wait_for(shared.counters, ARRIVED, 2 * job * shared.size)
            return _reduce(shared, result, longest)
        job += 1
    return 0.0


@inlined
def _reduce(shared: Any, result: Any, longest: float) -> float:
    """From the sums of all parts to the gradients; returns their norm."""
    found_Q2 = result.found_Q2
    for q in range(1, len(found_Q2)):
        for k in range(found_Q2.shape[1]):
            found_Q2[0, k] += found_Q2[q, k]
    if not (shared.learns and math.isfinite(found_Q2[0, 0])):  # the gradients before tell more of a lost loss
        return math.nan
    sums_QM, gradients_W, packed = result.sums_QM, result.gradients_W, shared.packed
    for q in range(1, len(sums_QM)):
        add(sums_QM[:1], sums_QM[q : q + 1])
    zero = sums_QM.dtype.type(0)
    unpack(packed.unpack_N9, packed.gradients, packed.sums_M2, sums_QM.itemsize, zero)
    norm = math.sqrt(_squares(gradients_W, result.squares_8))
    if math.inf > norm > longest:
        factor = gradients_W.dtype.type(longest / (norm + 1e-6))
        _multiply_by(gradients_W, factor)
    return norm


@inner
def _multiply_by(a_W: Any, factor: Any) -> None:
    for w in range(len(a_W)):
        a_W[w] *= factor


@inner
def _squares(a_W: Any, sums_8: Any) -> float:
    """The sum of the squares: of eight sums, which need not wait for each other."""
    for k in range(8):
        sums_8[k] = 0
    for w in range(0, len(a_W) - 7, 8):
        for k in range(8):
            sums_8[k] += np.float64(a_W[w + k]) * np.float64(a_W[w + k])
    total = 0.0
    for k in range(8):
        total += sums_8[k]
    for w in range(len(a_W) // 8 * 8, len(a_W)):
        total += np.float64(a_W[w]) * np.float64(a_W[w])
    return total
