"""Tests of the door to data, on real Postgres and OpenBao."""
