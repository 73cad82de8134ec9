"""Model packs: format, digests, registry."""
