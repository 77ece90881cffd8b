"""The machine engine: machine code for whole sequences, generated from a cell's step. Import the modules."""
