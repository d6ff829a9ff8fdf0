"""Clients that others wrote, talking to a running Coffer over a real socket."""
