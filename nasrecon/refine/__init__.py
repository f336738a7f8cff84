"""Refine poses that are a little off by feature matches."""
