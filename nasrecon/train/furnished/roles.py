"""What a catalogue entry is used as: seat, table, lamp on the ceiling, thing on a table, tree ..."""

from __future__ import annotations

import functools
import re

from nasrecon.train.furnished.models import Entry

_WORDS = {
    "ceiling": "chandelier|pendant|hanging light|ceiling|fluorescent|multilamp|track light|smoke detector",
    "tree": "tree|palm|pine|maple|beech|poplar|acacia|cypress|peach blossom|christmas",
    "shrub": "bush|hedge|bamboo|ficus|plant|flower|yucca|tulip|lily|orchid|cactus|spathi|succulent|bonsai",
    "seat": "chair|stool|seat|puff|class seat",
    "table": "table|desk|workbench|island$",
    "rug": "rug|carpet|bathmat|doormat|tatami",
    "ignored": "swimming pool|parking slot|crossing|arrow|rails|elevator$|^contemporary|escalator|garage|barnum|socket|"
    "plug|switch|tatami",
}
_PATTERNS = {role: re.compile(words, re.IGNORECASE) for role, words in _WORDS.items()}
_NOT_TABLES = re.compile("lamp|tennis bat|table fan|changing|bedside|tablet", re.IGNORECASE)


@functools.cache
def role_of(entry: Entry) -> str:
    """Return the role of a model: ceiling, opening, tree, shrub, seat, table, rug, person ... or ignored."""
    name, (width, height, depth) = entry.name, entry.size
    is_a = lambda role: bool(_PATTERNS[role].search(name))  # noqa: E731
    if is_a("ignored") or max(entry.size) < 0.04:
        return "ignored"
    if entry.opening:
        return "opening"
    if is_a("rug") and height < 0.05:
        return "rug"
    if (is_a("ceiling") and "fan" not in name.lower()) or name == "Ceiling fan":
        return "ceiling"
    if entry.category == "Characters":
        return "person"
    if entry.category == "Vehicles" and width * depth > 0.6:
        return "vehicle"
    if is_a("tree") and height > 1.2:
        return "tree"
    if is_a("shrub"):
        return "shrub" if height > 0.6 else "small"
    if entry.elevation > 0.35 and depth < 0.7:
        return "wall"
    if is_a("seat") and width < 1.3:
        return "seat"
    if is_a("table") and not _NOT_TABLES.search(name) and min(width, depth) > 0.35 and height < 1.2:
        return "table"
    if max(width, depth) < 0.55 and height < 0.7:
        return "small"
    return "outdoor" if entry.category == "Exterior" else "furniture"


def sort_by_role(entries: list[Entry]) -> dict[str, list[Entry]]:
    """Return the entries of each role, in the order of the catalogue."""
    out: dict[str, list[Entry]] = {}
    for entry in entries:
        out.setdefault(role_of(entry), []).append(entry)
    return out
