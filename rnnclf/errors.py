"""The exception classes.

    RnnclfError              the user can fix it: one message on stderr, exit code 2
    ├── ConfigError          an invalid key or value in the configuration
    │   └── UnknownNameError     a name that is not in the registry
    ├── DataError            a data file is missing, damaged or malformed
    ├── CheckpointError      a file is not a checkpoint, or does not match the data or the command
    ├── OutputError          a result cannot be written
    │   └── InUseError           another process writes there
    └── DivergedError        the training loss became NaN or infinite
    JobFailed                a bug inside a job; its traceback is in the job's log, exit code 1

All take a single string, so that they can be pickled and sent from a worker process.
"""


class RnnclfError(Exception):
    """An error that the user can fix; the message says what is wrong, the value, and what would be right."""


class ConfigError(RnnclfError):
    """A key or a value of the configuration is invalid."""


class UnknownNameError(ConfigError):
    """A name is not in the registry."""


class DataError(RnnclfError):
    """A data file is missing, damaged or malformed."""


class CheckpointError(RnnclfError):
    """A file is not a checkpoint, or does not match the data or the command."""


class OutputError(RnnclfError):
    """A result cannot be written."""


class InUseError(OutputError):
    """Another process writes into the same folder."""


class DivergedError(RnnclfError):
    """The training loss became NaN or infinite."""


class JobFailed(Exception):  # noqa: N818 - reads better than JobFailedError
    """A job raised an unexpected exception; its traceback is in the job's log."""
