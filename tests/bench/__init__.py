"""The bench runs, and all it measures answers as it should."""
