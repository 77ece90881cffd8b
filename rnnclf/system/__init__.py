"""The process: its start and end, signals, work in a process of its own. The standard library alone."""
