"""The errors that nasrecon raises on purpose. The command line turns them into a message and an exit code."""


class NasReconError(Exception):
    """Base of all errors of this package: the run failed for a reason that the message explains (exit code 1)."""

    exit_code = 1


class InputError(NasReconError):
    """Report input that cannot be used: names the file, what was found, what was expected and what to do
    (exit code 2)."""

    exit_code = 2


class NoPosesError(InputError):
    """Report images without cameras: none were named, and no known layout is there; they can be found (exit code 2)."""


class WeightsError(InputError):
    """Report weights that are missing, damaged, or belong to another network (exit code 2)."""


class EmptyResultError(NasReconError):
    """Report a stage that dropped everything; the message names the stage and how to loosen it (exit code 1)."""
