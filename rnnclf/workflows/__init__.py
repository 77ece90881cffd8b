"""The work behind each command, from a Config to its results. Nothing here prints.

Import the modules one by one, not this package, so that `rnnclf list` does not wait for torch.
"""
