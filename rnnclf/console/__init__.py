"""The only code that prints. Import the modules, not this package: `rnnclf list` must not wait for torch."""
