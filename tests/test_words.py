"""Names and phrases that the package does not use: each has a plainer one (see the terms in ``nasrecon/README.md``)."""

from __future__ import annotations

import ast
import re

from test_shape import files

NAMES = {
    "AsJson",
    "Fit",
    "InferOptions",
    "Observations",
    "Posed",
    "Supposition",
    "WhichFormat",
    "WhichWay",
    "_Case",
    "_ONE_LOOK",
    "_UNSURE",
    "_against_hint",
    "_circumstances",
    "_in_doubt",
    "_strew",
    "belief",
    "blended",
    "depth_agrees",
    "doctor",
    "enough",
    "given_cam_from_world",
    "in_front",
    "joined",
    "likeness",
    "look_at_cameras",
    "looks",
    "moved_px",
    "moved_to",
    "much_better",
    "on_drop",
    "on_trial",
    "open_asked",
    "quarter_turned",
    "rank_sources",
    "rough",
    "said",
    "say",
    "says_little",
    "shake",
    "shrunk",
    "stills",
    "strewn",
    "suppose",
    "tell",
    "thin_mesh",
    "told",
    "upright",
}
PHRASES = (
    "take the coarse pass at its word",
    "have their say",
    "nobody can tell",
    "What a network eats",
    "What a network says",
    "worth the name",
    "in no time",
    "second witness",
    "told as two",
    "What came of it",
    "say nothing new",
    "show nothing common",
    "without believing",
    "applied unasked",
    "adds no new look",
    "knows label",
    "What an error is",
    "Who is told",
    "can be told",
    "nobody ever sees",
    "two sides of its story",
    "comes round to it",
    "nobody's error",
    "doctor",
)


def identifiers(tree: ast.AST) -> set[str]:
    out = set()
    for node in ast.walk(tree):
        for field in ("id", "name", "arg", "attr", "asname"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                out.add(value.rpartition(".")[2])
        out |= {part for part in str(getattr(node, "module", "")).split(".")}
    return out


def test_no_name_of_the_list_is_an_identifier() -> None:
    found = {name: sorted(identifiers(ast.parse(text)) & NAMES) for name, text in files()}
    assert not {name: names for name, names in found.items() if names}


def test_no_phrase_of_the_list_is_in_a_docstring_a_comment_or_a_message() -> None:
    found = []
    for name, text in files():
        plain = re.sub(r"\s+(# )?", " ", text)
        found += [f"{name}: {phrase}" for phrase in PHRASES if phrase.lower() in plain.lower()]
    assert not found, found
