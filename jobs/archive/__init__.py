"""Rows of a table in a file: JSON Lines, compressed, with a manifest that says what is in it."""
