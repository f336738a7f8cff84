"""From images to verified feature matches; the given cameras are not used."""
