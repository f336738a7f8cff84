"""Files become a Scene. One module a family of layouts, one ``Layout`` (a recogniser and a reader) a layout."""
