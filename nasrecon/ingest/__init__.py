"""Files become a Scene."""
