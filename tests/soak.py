"""What only `make soak` runs: long checks whose short form, or whose parts, `make test` runs elsewhere."""

import os

import pytest

soak_only = pytest.mark.skipif(os.environ.get("COFFER_SOAK") != "1", reason="`make soak` runs it")
