"""From findings to what people and machines read: report, key image, organ map file."""
