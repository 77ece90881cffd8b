"""From one step in torch to a graph: tracer.py begins."""
