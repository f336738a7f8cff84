"""``python -m nasrecon``: the command line."""

from nasrecon.cli import main

main()
