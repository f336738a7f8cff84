"""The command ``nasrecon``, also as ``python -m nasrecon``."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is loaded ends it with one line, too."""
    try:
        from nasrecon.cli import main as run
        from nasrecon.cli.interrupt import EXIT_CODE
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: nothing was begun\n")
        raise SystemExit(130) from None
    try:
        run()
    except SystemExit as end:
        if end.code != EXIT_CODE:
            raise
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_CODE)  # all is closed; to unload the libraries would take seconds on a busy machine


if __name__ == "__main__":
    main()
