"""Who made the models that worlds are furnished with, and under which licences: for the manifest of the weights."""

from __future__ import annotations

import re
from collections import Counter

from nasrecon.train.furnished.models import Entry, ModelLibrary, read_licence


def credits_text(library: ModelLibrary) -> str:
    """Return a paragraph for each archive: its licence and its creators with the number of their models."""
    parts = []
    for folder in library.archives:
        entries = [entry for entry in library.entries if entry.file.is_relative_to(folder)]
        names = creators(entries)
        listed = ", ".join(f"{name} ({count})" for name, count in sorted(names.items(), key=lambda x: x[0].lower()))
        parts.append(f"{folder.name}: {len(entries)} models. {read_licence(folder)}.\nCreators: {listed}.\n")
    return "\n".join(parts)


def creators(entries: list[Entry]) -> Counter[str]:
    """Count the models of each creator; a model of several counts for each."""
    return Counter(name for entry in entries for name in re.split(r"\s*(?:,|&)\s*", entry.creator) if name)
