"""Conformance: claims that every cell has to satisfy, as tests that can be run on any cell.

verdict.py runs a claim on a cell, claims.py contains the claims, cells.py makes the cells and inputs to test.
"""
