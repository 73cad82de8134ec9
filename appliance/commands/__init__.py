"""What each command of the command line does and prints; :mod:`appliance.cli` only parses and calls."""
