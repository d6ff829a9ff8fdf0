"""Tests of the local services, against the real ones."""
