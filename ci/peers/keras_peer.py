"""TensorFlow's side of ci/side-by-side: one training step of the article's Keras model, timed; one JSON line."""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy
from peer import say
import tensorflow
from tensorflow import keras


class Clock(keras.callbacks.Callback):
    """Seconds of each batch."""

    def __init__(self):
        super().__init__()
        self.samples = []

    def on_train_batch_begin(self, batch, logs=None):
        self.start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.samples.append(time.perf_counter() - self.start)


def model(a):
    ids = keras.layers.Input((None,), dtype="int32")
    x = keras.layers.Embedding(a.vocabulary, a.width)(ids)
    x = keras.layers.MultiHeadAttention(num_heads=a.heads, key_dim=a.width // a.heads)(x, x)
    x = keras.layers.Dense(a.width, activation="relu")(x)
    built = keras.Model(ids, keras.layers.Dense(a.width)(x))
    built.compile(optimizer="adam", loss="mse")
    return built


def main():
    parser = argparse.ArgumentParser()
    for name in ["width", "heads", "vocabulary", "batch", "tokens", "threads"]:
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=4)
    a = parser.parse_args()
    tensorflow.config.threading.set_intra_op_parallelism_threads(a.threads)
    numbers, steps = numpy.random.default_rng(5), 8
    ids = numbers.integers(a.vocabulary, size=(a.batch * steps, a.tokens), dtype=numpy.int32)
    targets = numbers.standard_normal((a.batch * steps, a.tokens, a.width), dtype=numpy.float32)
    network, clock = model(a), Clock()
    fit = lambda watch: network.fit(ids, targets, batch_size=a.batch, epochs=1, shuffle=False, verbose=0, callbacks=watch)
    fit([])
    end = time.perf_counter() + a.seconds
    while not clock.samples or time.perf_counter() < end:
        fit([clock])
    say(a.batch * a.tokens, statistics.median(clock.samples), tensorflow.__version__)


if __name__ == "__main__":
    main()
