"""Tests of any input draw the same examples in every run of the suite, so that a run's outcome follows the code alone.

``bash tests/run.sh tests/faults --hypothesis-profile=search`` draws many others.
"""

from hypothesis import HealthCheck, settings

shared = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
settings.register_profile("suite", max_examples=25, derandomize=True, **shared)
settings.register_profile("search", max_examples=1000, **shared)
settings.load_profile("suite")
