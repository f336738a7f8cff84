"""Measure the package's own parts: faults injected on purpose, and how many of them are found."""
