"""The SQLite database: the only room that writes SQL."""
