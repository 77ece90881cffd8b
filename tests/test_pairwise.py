"""Pairwise cases leave out no pair."""

from itertools import combinations, product

from tests.pairwise import pairwise


def test_any_two_values_of_two_axes_are_together_in_few_rows():
    axes = ["abc", range(4), (True, False), (True, False)]
    rows = pairwise(*axes)
    for (i, one), (j, other) in combinations(enumerate(axes), 2):
        assert {(row[i], row[j]) for row in rows} == set(product(one, other))
    assert len(rows) <= 16  # of 48
