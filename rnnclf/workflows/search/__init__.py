"""The search for settings: `rnnclf tune`.

A search is a sweep that chooses its jobs as it goes. Its memory is the folders of its trials, so any number
of workers can share it, and one that was killed goes on with the same points.
"""
