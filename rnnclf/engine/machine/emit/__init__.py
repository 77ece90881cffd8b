"""From a plan to LLVM text: module.py begins."""
