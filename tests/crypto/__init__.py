"""Tests of keys and bytes."""
