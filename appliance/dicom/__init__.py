"""The wire and the file; between them the spool, and the assembly of what it holds into series."""
