"""Defaults of the pages; without numpy, so that the command line reads them at no cost."""

MAX_REPORT_MB = 25.0
"""Size of a report at most."""
PORT = 8080
"""First port that the live page tries."""
