"""Train, compare and trust recurrent sequence classifiers."""

__version__ = "0.1.0"
