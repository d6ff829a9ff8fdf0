"""Tests, in folders that mirror the packages, so that equal file names do not collide."""
