"""The main loops."""
