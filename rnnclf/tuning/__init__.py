"""The logic of a search over settings: its space, the next point, pruning, and which settings matter.

Nothing here starts a process, reads a folder or imports torch (only sampler=gp does, inside Optuna). A search
has no memory of its own: all of it follows from the space and the trials.
"""
