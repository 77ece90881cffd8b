"""Keras 3 as its guides write it: a Sequential model, compile and fit, on TensorFlow or on JAX.

    python benchmarks/peers/keras_fit.py --backend jax --unroll --model gru --epochs 3 --threads 1 --mnist DIR

jit_compile is left at its default.
"""

import importlib
import os
import time

import common

parser = common.parser(__doc__)
parser.add_argument("--backend", choices=("tensorflow", "jax"), default="tensorflow")
parser.add_argument("--unroll", action="store_true", help="the layer's unroll=True")
options = common.start(parser)
os.environ["KERAS_BACKEND"] = options.backend
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
if options.backend == "jax" and options.threads == 1:
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

import keras  # noqa: E402
from keras import layers  # noqa: E402

backend = importlib.import_module(options.backend)
LAYERS = {"basic": layers.SimpleRNN, "lstm": layers.LSTM, "gru": layers.GRU}


class EpochSeconds(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self.started)


def main():
    if options.backend == "tensorflow":
        backend.config.threading.set_intra_op_parallelism_threads(options.threads)
        backend.config.threading.set_inter_op_parallelism_threads(options.threads)
    keras.utils.set_random_seed(0)
    training, validation = common.read_mnist(options)
    model = keras.Sequential(
        [
            keras.Input((common.STEPS, common.FEATURES)),
            LAYERS[options.model](common.HIDDEN, unroll=options.unroll),
            layers.Dense(common.CLASSES),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate=common.LEARNING_RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    epochs = EpochSeconds()
    model.fit(
        *training,
        batch_size=common.BATCH,
        epochs=options.epochs,
        shuffle=True,
        verbose=0,
        callbacks=[epochs],
    )
    predicted_N = model.predict(validation[0], batch_size=1000, verbose=0).argmax(axis=1)
    accuracy = float((predicted_N == validation[1]).mean())
    common.report(options, epochs.seconds, accuracy, common.versions(keras, backend))


main()
