"""Tests of the edge: HTTP, documents, limits and errors, on a small schema of their own."""
