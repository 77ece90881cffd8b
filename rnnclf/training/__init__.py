"""Training and evaluation. Import the modules, not this package: TAB must not wait for torch."""
