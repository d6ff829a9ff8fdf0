"""Webhooks: who gets which event, what is sent of it, where to, and what became of it."""
