"""Score networks by named protocols."""
