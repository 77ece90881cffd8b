"""A training step of a whole classifier in machine code: forward pass, loss and backward pass.

The classifier consists of layers of one cell, a linear head on the last output of the top layer, and
cross-entropy. Each core computes a part of the batch, from the sequences to the gradients.

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
    basic_backward,
    basic_steps,
    gru_backward,
    gru_steps,
    lstm_backward,
    lstm_steps,
)
from rnnclf.engine.compiled.workers import ARRIVED, LAST_JOB, POSTED, advance, load_acquire, wait_for


class BasicBuffers(NamedTuple):
    """The memory for a layer of a part of a batch. dz_TBG: for the gradients of the preactivations."""

    a_SBK: Any
    sums_BP: Any
    dz_TBG: Any
    dh_BP: Any
    running_T: Any
    at: Any
    relu: bool


class LSTMBuffers(NamedTuple):
    a_SBK: Any
    c_SBP: Any
    dz_TBG: Any
    dh_BP: Any
    dc_BP: Any
    running_T: Any
    at: Any


class GRUBuffers(NamedTuple):
    a_SBK: Any
    dz_TBG: Any
    dh_BP: Any
    running_T: Any
    at: Any


def _forward(buffers: Any, weights: Any) -> None:
    """The forward pass of a layer through all time steps, in compiled code."""
    raise NotImplementedError("_forward is for compiled code.")


def _backward(buffers: Any, weights: Any, dy_TBH: Any, sums: Any) -> None:
    """The backward pass of a layer through all time steps, in compiled code, from the gradients of the last
    state and of all outputs, if there are any; adds those of the weights."""
    raise NotImplementedError("_backward is for compiled code.")


def _basic_forward(buffers: Any, weights: Any) -> None:
    basic_steps(
        buffers.a_SBK, buffers.at, buffers.sums_BP, weights[0], buffers.running_T, False, buffers.relu
    )


def _basic_backward(buffers: Any, weights: Any, dy_TBH: Any, sums: Any) -> None:
    basic_backward(
        buffers.a_SBK, buffers.at, buffers.dz_TBG, weights[1], buffers.running_T, False, buffers.relu, dy_TBH,
        buffers.dh_BP, sums[0],
    )  # fmt: skip


def _lstm_forward(buffers: Any, weights: Any) -> None:
    lstm_steps(buffers.a_SBK, buffers.at, buffers.c_SBP, buffers.dz_TBG, weights[0], buffers.running_T, False)


def _lstm_backward(buffers: Any, weights: Any, dy_TBH: Any, sums: Any) -> None:
    fill_zeros(buffers.dc_BP)
    lstm_backward(
        buffers.a_SBK, buffers.at, buffers.c_SBP, buffers.dz_TBG, weights[1], buffers.running_T, False,
        dy_TBH, buffers.dh_BP, buffers.dc_BP, sums[0],
    )  # fmt: skip


def _gru_forward(buffers: Any, weights: Any) -> None:
    gru_steps(buffers.a_SBK, buffers.at, buffers.dz_TBG, weights[:3], buffers.running_T, False)


def _gru_backward(buffers: Any, weights: Any, dy_TBH: Any, sums: Any) -> None:
    gru_backward(
        buffers.a_SBK, buffers.at, buffers.dz_TBG, weights[3], buffers.running_T, False, dy_TBH,
        buffers.dh_BP, sums[0], sums[1], sums[2],
    )  # fmt: skip


_PASSES = {
    BasicBuffers: (_basic_forward, _basic_backward),
    LSTMBuffers: (_lstm_forward, _lstm_backward),
    GRUBuffers: (_gru_forward, _gru_backward),
}


@overload_for(_forward, "always")
def _forward_of(buffers: Any, weights: Any) -> Any:
    return _PASSES[buffers.instance_class][0]


@overload_for(_backward, "always")
def _backward_of(buffers: Any, weights: Any, dy_TBH: Any, sums: Any) -> Any:
    return _PASSES[buffers.instance_class][1]


class Sequences(NamedTuple):
    """Raw sequences, bytes or float32. The inputs of the model are (x - shift) / scale.

    Sequence n is bytes_RTI[row_N[n]] or, if that is empty, floats_RTI[row_N[n]]: both fields always exist, so
    that the code is compiled only once. chosen_B: the indices of the batch's sequences.
    """

    bytes_RTI: Any
    floats_RTI: Any
    row_N: Any
    y_N: Any
    shift_I: Any
    scale_I: Any
    chosen_B: Any


class PackedWeights(NamedTuple):
    """The arguments of `pack` for all parameters, and those of `unpack` for their gradients."""

    pack_N9: Any
    parameters: Any
    matrices_M3: Any
    unpack_N9: Any
    gradients: Any
    sums_M2: Any


class Head(NamedTuple):
    """The linear head and the loss: packed matrices for the forward and backward pass, the weight of each
    class, label smoothing."""

    forward: Any
    backward: Any
    weight_C: Any
    smoothing: float


class Shared(NamedTuple):
    """Data shared by all workers.

    counters: see `wait_for`. parts: the number of workers. needs_gradients: whether to run the backward pass.
    weights: the packed matrices of each layer; the last one maps the gradients of the preactivations to those
    of the layer's inputs.
    """

    counters: Any
    parts: int
    needs_gradients: bool
    data: Any
    packed: Any
    weights: Any
    head: Any


class Result(NamedTuple):
    """The results of all parts; the leader adds them up in the row of the first part.

    sums_QM: gradients of all matrices, concatenated. totals_Q2: loss and number of correct predictions.
    gradients_W: gradients of all parameters, concatenated. squares_8: scratch memory for their norm.
    """

    sums_QM: Any
    totals_Q2: Any
    gradients_W: Any
    squares_8: Any


class Layer(NamedTuple):
    """The work of one layer in a part.

    buffers: its memory. columns: the number of leading columns of dz_TBG that depend on its inputs. sums:
    the gradients of its packed weights. dy_TBH: the gradients of its outputs; empty in the top layer.
    """

    buffers: Any
    columns: int
    sums: Any
    dy_TBH: Any


class Part(NamedTuple):
    """A part of a batch.

    first: the position in the batch of its first sequence. z_NC: logits, later their gradients. head_sums:
    gradients of the head. sums_M: gradients of all matrices, concatenated. totals: loss and number of correct
    predictions.
    """

    number: int
    first: int
    layers: Any
    z_NC: Any
    head_sums: Any
    sums_M: Any
    totals: Any


@inlined
def _gather(data: Any, first: int, at: Any, a_SBK: Any) -> None:
    """Writes the inputs into the operands of the lowest layer."""
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
    """Copies the states of the layer below, which begin at column `first`, into the operands of this
    layer."""
    begin = at.first - at.inputs - 1
    for t in range(len(a_SBK) - 1):
        for n in range(a_SBK.shape[1]):
            for i in range(at.inputs):
                a_SBK[t, n, begin + i] = below_SBK[t + 1, n, first + i]


@inner
def _prepare(x_RTI: Any, row: int, shift_I: Any, scale_I: Any, a_SBK: Any, n: int, begin: int) -> None:
    """Writes a sequence into the operands. It indexes whole arrays, since making a view of a row would take
    as long as copying the row."""
    for t in range(x_RTI.shape[1]):
        for i in range(x_RTI.shape[2]):
            a_SBK[t, n, begin + i] = (a_SBK.dtype.type(x_RTI[row, t, i]) - shift_I[i]) / scale_I[i]


@inlined
def _loss_and_gradients(
    data: Any, first: int, head: Any, z_NC: Any, totals: Any, needs_gradients: bool
) -> None:
    """Computes cross-entropy and correct predictions from logits, and replaces these by their gradients, if
    needed. A loss that is too large for their type becomes infinite."""
    classes, total = len(head.weight_C), 0.0
    for b in range(len(data.chosen_B)):
        total += head.weight_C[data.y_N[data.chosen_B[b]]]
    loss, correct = 0.0, 0
    for n in range(len(z_NC)):
        z_C, y = z_NC[n], data.y_N[data.chosen_B[first + n]]
        best = 0
        for c in range(1, classes):
            if z_C[c] > z_C[best]:
                best = c
        correct += best == y
        largest, exp_sum, target_sum = np.float64(z_C[best]), 0.0, 0.0
        for c in range(classes):
            exp_sum += math.exp(z_C[c] - largest)
            target_sum += _target(head, c, y)
        for c in range(classes):
            target, z = _target(head, c, y), z_C[c] - largest
            loss += target * (math.log(exp_sum) - z)
            if needs_gradients:
                z_C[c] = (target_sum * math.exp(z) / exp_sum - target) / total
    totals[0], totals[1] = z_NC.dtype.type(loss) / total, correct


@inner
def _target(head: Any, c: int, y: int) -> float:
    """The weight of class c in the loss of a sequence of class y."""
    share = head.smoothing / len(head.weight_C) + (1.0 - head.smoothing if c == y else 0.0)
    return np.float64(head.weight_C[c if head.smoothing > 0 else y] * share)


@inlined
def _compute(shared: Any, part: Any, job: int) -> None:
    """Computes one part, from its sequences to the loss and, if needed, the gradients of the weights."""
    data, head, layers, z_NC = shared.data, shared.head, part.layers, part.z_NC
    top, at, zero = layers[-1].buffers, layers[-1].buffers.at, z_NC.dtype.type(0)
    packed = shared.packed
    pack(
        packed.pack_N9, packed.parameters, packed.matrices_M3, z_NC.itemsize, zero, part.number, shared.parts
    )
    _gather(data, part.first, layers[0].buffers.at, layers[0].buffers.a_SBK)
    advance(shared.counters, ARRIVED, 1)
    wait_for(shared.counters, ARRIVED, (2 * job - 1) * shared.parts)  # all weights are packed
    below = layers[0].buffers
    for n in range(len(layers)):
        buffers = layers[n].buffers
        if n > 0:
            _copy_states_up(below.a_SBK, below.at.first, buffers.a_SBK, buffers.at)
        _forward(buffers, shared.weights[n])
        below = buffers
    last_BK = top.a_SBK[-1]
    product(last_BK[:, at.first - 1 : at.first + at.hidden], head.forward, 1 + at.hidden, z_NC, 0)
    _loss_and_gradients(data, part.first, head, z_NC, part.totals, shared.needs_gradients)
    if shared.needs_gradients:
        fill_zeros(part.sums_M.reshape(1, -1))
        product(z_NC[:, : len(head.weight_C)], head.backward, len(head.weight_C), top.dh_BP, 0)
        layer = layers[-1]
        for n in range(len(layers) - 1, -1, -1):
            weights = shared.weights[n]
            _backward(layer.buffers, weights, layer.dy_TBH, layer.sums)
            if n > 0:
                above, layer = layer, layers[n - 1]
                dz_RG = _rows(above.buffers.dz_TBG)[:, : above.columns]
                product_of_many(dz_RG, weights[-1], _rows(layer.dy_TBH))
                fill_zeros(layer.buffers.dh_BP)
        a_NK = last_BK[:, at.first - lanes_of(z_NC) :]
        sums_CK = part.head_sums[:, :]  # same type as for the layers, so that the code is compiled once
        product_over_rows(z_NC[:, : len(head.weight_C)], a_NK, sums_CK)
    advance(shared.counters, ARRIVED, 1)


@jit
def work_on_part(shared: Any, part: Any, result: Any, max_norm: float, is_leader: bool) -> float:
    """Computes a part of a batch. A worker does so for each posted batch until it is stopped. The leader
    computes a single batch: it posts the batch, waits for all parts, and adds up the gradients.

    Both roles share one function because compiling it takes seconds. Returns to the leader the norm of the
    gradients before clipping them to `max_norm`; NaN if there are no gradients or the loss is not finite.
    """
    if is_leader:
        job = load_acquire(address_of(shared.counters) + 8 * POSTED) + 1
        advance(shared.counters, POSTED, 1)
    else:
        job = 1
    while is_leader or wait_for(shared.counters, POSTED, job) < LAST_JOB:
        _compute(shared, part, job)
        if is_leader:
            wait_for(shared.counters, ARRIVED, 2 * job * shared.parts)
            return _reduce(shared, result, max_norm)
        job += 1
    return 0.0


@inlined
def _reduce(shared: Any, result: Any, max_norm: float) -> float:
    """Adds up the results of all parts, unpacks and clips the gradients, and returns their norm."""
    totals_Q2 = result.totals_Q2
    for q in range(1, len(totals_Q2)):
        for k in range(totals_Q2.shape[1]):
            totals_Q2[0, k] += totals_Q2[q, k]
    if not (
        shared.needs_gradients and math.isfinite(totals_Q2[0, 0])
    ):  # keeps the previous gradients, which help to diagnose a lost loss
        return math.nan
    sums_QM, gradients_W, packed = result.sums_QM, result.gradients_W, shared.packed
    for q in range(1, len(sums_QM)):
        add(sums_QM[:1], sums_QM[q : q + 1])
    zero = sums_QM.dtype.type(0)
    unpack(packed.unpack_N9, packed.gradients, packed.sums_M2, sums_QM.itemsize, zero)
    norm = math.sqrt(_squares(gradients_W, result.squares_8))
    if math.inf > norm > max_norm:
        factor = gradients_W.dtype.type(max_norm / (norm + 1e-6))
        _multiply_by(gradients_W, factor)
    return norm


@inner
def _multiply_by(a_W: Any, factor: Any) -> None:
    for w in range(len(a_W)):
        a_W[w] *= factor


@inner
def _squares(a_W: Any, sums_8: Any) -> float:
    """The sum of squares, in eight independent accumulators."""
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
