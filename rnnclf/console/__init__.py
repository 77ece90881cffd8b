"""The only code that prints. Import the modules one by one, so that `rnnclf list` does not wait for torch."""
