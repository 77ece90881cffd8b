"""Process start-up and exit, signals, and work in a forked process. Standard library only."""
