"""The command ``nasrecon``, also as ``python -m nasrecon``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is loaded ends it with one line, too."""
    try:
        from nasrecon.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: nothing was begun\n")
        raise SystemExit(130) from None
    run()


if __name__ == "__main__":
    main()
