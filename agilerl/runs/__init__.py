"""Runs as a person meets them: begun in one line, kept in a folder, looked at and filmed."""
