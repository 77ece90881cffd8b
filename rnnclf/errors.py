"""What can go wrong, as a tree.

    RnnclfError              the user can act: one message on stderr, exit code 2
    ├── ConfigError          a key or a value of the configuration
    │   └── UnknownNameError     a name that no registry holds
    ├── DataError            a data file is missing, damaged or not what it should be
    ├── CheckpointError      a file is no checkpoint, or does not fit what it is asked to do
    ├── OutputError          a result cannot be written
    └── DivergedError        the loss became NaN or infinite
    JobFailed                a bug inside a job; its traceback is in the job's log, exit code 1

All take one string, so that they survive the trip from a worker process.
"""


class RnnclfError(Exception):
    """Something the user can put right; the message says what, which value, what would be right."""


class ConfigError(RnnclfError):
    """A key or a value of the configuration is not valid."""


class UnknownNameError(ConfigError):
    """A name that is in no registry."""


class DataError(RnnclfError):
    """A data file is missing, damaged or not what it should be."""


class CheckpointError(RnnclfError):
    """A file is no checkpoint, or does not fit what it is asked to do."""


class OutputError(RnnclfError):
    """A result cannot be written."""


class DivergedError(RnnclfError):
    """The training loss became NaN or infinite."""


class JobFailed(Exception):  # noqa: N818 - it reports a failure, it is not the failure itself
    """A job raised something unforeseen; its traceback is in the job's log."""
