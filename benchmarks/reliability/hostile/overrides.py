"""Hostile words of the command line."""

from __future__ import annotations

import contextlib
import io
import random

from benchmarks.reliability.hostile.changes import NASTY, WORDS
from benchmarks.reliability.hostile.ground import CONTROL, Ground

# fmt: off
OVERRIDES = [
    "hidden=5", "cell=gru", "cell=lstm", "cell.recurrent_init=glorot", "layers=2", "bidirectional=true",
    "dropout=0.1", "optimizer.lr=0.01", "optimizer=sgd", "schedule=cosine", "dataset=digits",
    "dataset.validation=0.2", "seed=1,2", "dataset.path=a.csv", "dataset=table", "epochs=3",
    "match_parameters=30k", "plugins=[]", "experiment=tutorial", "+new=1", "~clip", "++epochs=2",
    "seed=range(0,4)", "hidden=choice(1,2)", "optimizer.lr=interval(0,1)", "hydra.run.dir=x",
    "hydra/launcher=basic", "threads=auto", "device=cpu", "split=test", "augment=series",
    "checkpoint.every=30s",
]
PIECES = [
    "=", ",", "[", "]", "{", "}", "(", ")", ":", "'", '"', "\\", "$", "${", "${oc.env:FUZZ_SECRET}",
    "${canary:x}", "~", "+", "++", "@", "/", ".", "..", "_target_", "null", "nan", "inf", "-", "--", "1e400",
    "10000000000000000000000", "range(0,1000000000000)", "glob(*)", "sort(3,2)", "shuffle(1,2)",
    "extend_list(1)", "tag(a,1)", "str(", "é", "\x1b[2J", "\ud800", " ", "\t", "\n", "[" * 300, "{a:" * 60,
    "x" * 3000, "hydra.job.env_set={A:1}", "_self_", "cell._target_=os.system", "/dev/zero", "~nosuchuser",
    "hydra.callbacks.x._target_=os.system", "plugins=[no_such_module]",
]
# fmt: on


def hostile_words(rng: random.Random) -> list[str]:
    words = rng.sample(OVERRIDES, rng.choice([1, 1, 2, 3]))
    for _ in range(rng.choice([1, 1, 2, 4])):
        place = rng.randrange(len(words))
        word, piece = words[place], rng.choice(PIECES)
        start = rng.randrange(len(word) + 1)
        key, _, value = word.partition("=")
        words[place] = rng.choice(
            [
                word[:start] + piece + word[start:],
                word[:start] + piece,
                f"{key}={piece}",
                f"{key}={rng.choice(NASTY)}",
                f"{piece}={value}",
                word[:start] + word[start + 1 :],
                piece,
                f"{key}.{rng.choice(WORDS)}={value}",
            ]
        )
    return words


def try_overrides(rng: random.Random, ground: Ground) -> str:
    """The words of train up to a checked config, and those of eval."""
    from rnnclf.errors import RnnclfError
    from rnnclf.hydra_app.bridge import flags_and_overrides
    from rnnclf.hydra_app.compose import load_config, parsed

    words = hostile_words(rng)
    outcome = "refused"
    for read in (lambda: load_config(flags_and_overrides(words)[1]), lambda: parsed(words)):
        try:
            read()
            outcome = "accepted"
        except RnnclfError as error:
            from rnnclf.console.screen import print_error

            with contextlib.redirect_stderr(io.StringIO()) as screen:
                print_error(str(error))
            assert not CONTROL.search(screen.getvalue()), screen.getvalue()
    return outcome
