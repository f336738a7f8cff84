"""Estimates in the formats of other tools."""
