"""The rules and the rows: what may be read, written and kept; imports no edge, no job and no cipher."""
