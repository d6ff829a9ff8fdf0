"""Revisions, oldest first; each stands for ever as it ran."""
