"""How often methods that are equally good are called different, by three ways to compare them.

    python benchmarks/compare/ties.py

2,000 tables of three methods each; a table counts if Holm's correction leaves a p of at most 0.05 anywhere.
The logit of being right is 2 plus normal deviations: 1.5 for each sequence, and those of each run and of each
method on each sequence, which are printed.  Shapes: M methods, R seeds, N sequences, B bootstrap draws.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from rnnclf.statistics import crossed, holm, paired_p

TABLES, DRAWS = 2000, 2000
SETTINGS = [
    (3, 360, 0.0, 0.0),
    (3, 360, 0.3, 0.8),
    (5, 100, 0.1, 1.0),
    (5, 360, 0.5, 0.0),
    (10, 360, 0.3, 0.3),
]


def main() -> None:
    print("seeds × sequences, between runs, between methods: t test over seeds, bootstrap, compare")
    for seeds, sequences, between_runs, between_methods in SETTINGS:
        draw = np.random.default_rng(0)
        drawn_BR = draw.multinomial(seeds, [1 / seeds] * seeds, DRAWS) / seeds
        drawn_BN = draw.multinomial(sequences, [1 / sequences] * sequences, DRAWS) / sequences
        wrong = np.zeros(3)
        for _ in range(TABLES):
            logit_MRN = (
                2
                + 1.5 * draw.standard_normal(sequences)
                + between_runs * draw.standard_normal((3, seeds, 1))
                + between_methods * draw.standard_normal((3, 1, sequences))
            )
            right_MRN = (draw.random(logit_MRN.shape) < 1 / (1 + np.exp(-logit_MRN))).astype(np.int8)
            ps = []
            for i, j in combinations(range(3), 2):
                difference_RN = right_MRN[i] - right_MRN[j]
                mean_B = ((drawn_BR @ difference_RN) * drawn_BN).sum(axis=1)
                both = 2 * min((mean_B <= 0).mean(), (mean_B >= 0).mean())
                over_seeds = paired_p(difference_RN.mean(axis=1).tolist())
                found = crossed(difference_RN)
                ps.append((over_seeds, both, None if found is None else found.p))
            wrong += [min(p for p in holm(way) if p is not None) <= 0.05 for way in zip(*ps, strict=True)]
        rates = ", ".join(f"{rate:.1%}" for rate in wrong / TABLES)
        print(f"{seeds} × {sequences}, {between_runs}, {between_methods}: {rates}", flush=True)


if __name__ == "__main__":
    main()
