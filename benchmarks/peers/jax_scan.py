"""JAX as a careful user writes it: lax.scan over the steps, optax.adam, one jitted and donated training step.

    python benchmarks/peers/jax_scan.py --unroll 28 --epoch-scan --model gru --threads 1 --mnist DIR

The product with the inputs is one matrix product before the scan. The images lie on the device; a batch is
taken from them by index inside the step.
"""

import os

import common

parser = common.parser(__doc__)
parser.add_argument("--unroll", type=int, default=1, help="steps of the sequence in one turn of the scan")
parser.add_argument("--epoch-scan", action="store_true", help="one jitted scan over the batches of an epoch")
options = common.start(parser)
if options.threads == 1:
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
os.environ["JAX_PLATFORMS"] = "cpu"

from functools import partial  # noqa: E402

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

GATES = {"basic": 1, "lstm": 4, "gru": 3}
ADAM = optax.adam(common.LEARNING_RATE)


def basic(U_HG, c_G, h_BH, x_BG):
    return jnp.tanh(x_BG + h_BH @ U_HG + c_G)


def lstm(U_HG, c_G, state, x_BG):
    h_BH, cell_BH = state
    i, f, g, o = jnp.split(x_BG + h_BH @ U_HG + c_G, 4, axis=-1)
    cell_BH = jax.nn.sigmoid(f) * cell_BH + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(cell_BH), cell_BH


def gru(U_HG, c_G, h_BH, x_BG):
    x_r, x_z, x_n = jnp.split(x_BG, 3, axis=-1)
    h_r, h_z, h_n = jnp.split(h_BH @ U_HG + c_G, 3, axis=-1)
    r, z = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_z + h_z)
    n = jnp.tanh(x_n + r * h_n)
    return (1 - z) * n + z * h_BH


STEP = {"basic": basic, "lstm": lstm, "gru": gru}[options.model]


def initial_weights(key):
    """Uniform within 1/sqrt(H), as torch.nn begins."""
    gates = GATES[options.model] * common.HIDDEN
    shapes = {
        "W_IG": (common.FEATURES, gates),
        "b_G": (gates,),
        "U_HG": (common.HIDDEN, gates),
        "c_G": (gates,),
        "head_HC": (common.HIDDEN, common.CLASSES),
        "head_C": (common.CLASSES,),
    }
    bound = common.HIDDEN**-0.5
    keys = jax.random.split(key, len(shapes))
    return {
        name: jax.random.uniform(one, shape, minval=-bound, maxval=bound)
        for one, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def logits(weights, x_BTI):
    x_TBG = jnp.swapaxes(x_BTI, 0, 1) @ weights["W_IG"] + weights["b_G"]
    zero_BH = jnp.zeros((len(x_BTI), common.HIDDEN))
    state = (zero_BH, zero_BH) if options.model == "lstm" else zero_BH

    def body(state, x_BG):
        return STEP(weights["U_HG"], weights["c_G"], state, x_BG), None

    state, _ = jax.lax.scan(body, state, x_TBG, unroll=options.unroll)
    h_BH = state[0] if options.model == "lstm" else state
    return h_BH @ weights["head_HC"] + weights["head_C"]


def loss(weights, x_BTI, y_B):
    return optax.softmax_cross_entropy_with_integer_labels(logits(weights, x_BTI), y_B).mean()


def step(weights, moments, x_NTI, y_N, indices_B):
    gradients = jax.grad(loss)(weights, x_NTI[indices_B], y_N[indices_B])
    updates, moments = ADAM.update(gradients, moments)
    return optax.apply_updates(weights, updates), moments


jitted_step = jax.jit(step, donate_argnums=(0, 1))


def loop_over_batches(weights, moments, x_NTI, y_N, order_N):
    for first in range(0, len(order_N), common.BATCH):
        indices_B = order_N[first : first + common.BATCH]
        weights, moments = jitted_step(weights, moments, x_NTI, y_N, indices_B)
    return weights, moments


@partial(jax.jit, donate_argnums=(0, 1))
def scan_over_batches(weights, moments, x_NTI, y_N, order_N):
    """The whole batches by a scan, the rest of the images by one step after it."""
    whole = len(order_N) // common.BATCH * common.BATCH

    def body(state, indices_B):
        return step(*state, x_NTI, y_N, indices_B), None

    state, _ = jax.lax.scan(body, (weights, moments), order_N[:whole].reshape(-1, common.BATCH))
    return step(*state, x_NTI, y_N, order_N[whole:]) if whole < len(order_N) else state


def main():
    random = np.random.default_rng(0)
    training, validation = jax.tree.map(jax.device_put, common.read_mnist(options))
    weights = initial_weights(jax.random.key(0))
    moments = ADAM.init(weights)
    epoch = scan_over_batches if options.epoch_scan else loop_over_batches
    stopwatch = common.Stopwatch()
    for _ in range(options.epochs):
        with stopwatch:
            order_N = random.permutation(len(training[1])).astype(np.int32)
            weights, moments = jax.block_until_ready(epoch(weights, moments, *training, order_N))
    predicted_N = jax.jit(logits)(weights, validation[0]).argmax(axis=1)
    accuracy = float((predicted_N == validation[1]).mean())
    common.report(options, stopwatch.seconds, accuracy, common.versions(jax, optax))


main()
