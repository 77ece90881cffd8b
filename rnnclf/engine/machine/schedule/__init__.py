"""From a graph to a plan of what runs when and where it lies: planner.py begins."""
