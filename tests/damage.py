"""Damage to files, for tests that no damage ends in a traceback."""

from __future__ import annotations

from hypothesis import strategies as st

DAMAGE = (
    st.sampled_from(["cut", "change", "insert", "splice"]),
    st.floats(0, 1),
    st.one_of(
        st.binary(min_size=1, max_size=8),
        st.sampled_from([b"\n", b"\n\n", b",", b":", b"nan", b"1e999", b'"']),
    ),
)
"""Arguments of `damaged`, behind the content."""


def damaged(content: bytes, kind: str, place: float, other: bytes) -> bytes:
    """The content cut, overwritten, with something put in or a piece repeated, at a share of it."""
    at = int(place * len(content))
    if kind == "cut":
        return content[:at]
    if kind == "change":
        return content[:at] + other + content[at + len(other) :]
    if kind == "insert":
        return content[:at] + other + content[at:]
    return content[:at] + content[at // 2 :]
