"""Probes, MQTT publisher, disk keeper: how the box is, never who was scanned."""
