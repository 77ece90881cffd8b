"""Whole training steps: the functions in LLVM, and the tables that tell them where everything is."""
