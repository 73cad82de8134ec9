"""The four main loops."""
