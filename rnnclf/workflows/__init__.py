"""What each command does, from a Config to results. Nothing here prints.

Import the modules, not this package: `rnnclf list` must not wait for torch.
"""
