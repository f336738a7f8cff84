"""Worlds of real things: rooms, heaps and grounds of CAD models, ray cast by Open3D."""
