"""The organ map: one per scan, in a coded vocabulary, with plausibility gates."""
