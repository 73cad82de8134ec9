"""Outbox worker: what leaves for the PACS and the alert channels."""
