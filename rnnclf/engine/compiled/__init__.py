"""The compiled engine: machine code by Numba. Import the modules: Numba takes half a second to import."""
