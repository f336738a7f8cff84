"""Files become a Scene. One module a family of layouts, one ``Format`` (a recogniser and a reader) a layout."""
