"""Tests of the domain: rules, masks, normalisers and rows."""
