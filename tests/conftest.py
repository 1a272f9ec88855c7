"""What holds for every test."""

import os
from pathlib import Path

from hypothesis import HealthCheck, settings

# A generated example is judged by what it shows, not by how long a busy machine took for it: speed is the benchmarks' business.
settings.register_profile("lithograph", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lithograph")


def pytest_runtest_logstart(nodeid: str) -> None:
    """Where LITHO_TEST_BEGAN names a file, it holds the test that began last: a run ended for hanging can say in which."""
    if path := os.environ.get("LITHO_TEST_BEGAN"):
        Path(path).write_text(nodeid + "\n")
