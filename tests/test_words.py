"""Names and phrases that the package does not use: each has a plainer one."""

from __future__ import annotations

import ast
import re

from test_shape import files

NAMES = {
    "AsJson",
    "Fit",
    "Hint",
    "InferOptions",
    "Layout",
    "Observations",
    "Posed",
    "Sketch",
    "Supposition",
    "WhichFormat",
    "WhichWay",
    "_Case",
    "_ONE_LOOK",
    "_UNSURE",
    "_against_hint",
    "_agreed",
    "_circumstances",
    "_in_doubt",
    "_strew",
    "agreed",
    "alike",
    "alone",
    "belief",
    "blended",
    "cost2",
    "depth_agrees",
    "doctor",
    "enough",
    "fit",
    "found",
    "given_cam_from_world",
    "here",
    "in_front",
    "joined",
    "layout",
    "likeness",
    "look_at_cameras",
    "looks",
    "moved_px",
    "moved_to",
    "much_better",
    "on_drop",
    "on_trial",
    "open_asked",
    "own",
    "px",
    "quarter_turned",
    "rank_sources",
    "required_support",
    "rough",
    "said",
    "say",
    "says_little",
    "see_through",
    "seen",
    "shake",
    "sharpness",
    "shrunk",
    "stills",
    "strewn",
    "suppose",
    "tell",
    "there",
    "thin_mesh",
    "told",
    "trust",
    "upright",
    "votes",
}
PREFIXES = ("LEAST_", "MOST_", "told_")
PHRASES = (
    "take the coarse pass at its word",
    "surer than it has reason to be",
    "have their say",
    "nobody can tell",
    "finest pass can look across",
    "What a network eats",
    "What a network says",
    "worth the name",
    "in no time",
    "second witness",
    "so far from none",
    "told as two",
    "bend to make up for it",
    "and then forgotten",
    "What came of it",
    "say nothing new",
    "So many matches of a pair",
    "show nothing common",
    "without believing",
    "applied unasked",
    "adds no new look",
    "knows label",
    "against knowing nothing",
    "the sources can tell",
    "What an error is",
    "know the error",
    "Who is told",
    "how far a run is",
    "told of a scene",
    "can be told",
    "nobody ever sees",
    "two sides of its story",
    "comes round to it",
    "before saying what it wants",
    "nobody's error",
    "What training asks",
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
    in_files = {name: identifiers(ast.parse(text)) for name, text in files()}
    listed = {
        name: {word for word in words if word in NAMES or word.lstrip("_").startswith(PREFIXES)}
        for name, words in in_files.items()
    }
    assert not {name: words for name, words in listed.items() if words}


def test_no_phrase_of_the_list_is_in_a_docstring_a_comment_or_a_message() -> None:
    uses = []
    for name, text in files():
        plain = re.sub(r"\s+(# )?", " ", text)
        uses += [f"{name}: {phrase}" for phrase in PHRASES if phrase.lower() in plain.lower()]
    assert not uses, uses
