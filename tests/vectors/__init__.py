"""Frozen bytes, and a second reading of the formats they are in; the files are never made anew, only added to."""
