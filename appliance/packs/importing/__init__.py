"""Turning networks from elsewhere into packs, on a workstation; nothing here is ever needed on the box."""
