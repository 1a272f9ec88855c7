"""What holds for every test."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A generated example is judged by what it shows, not by how long a busy machine took for it: speed is the benchmarks' business.
settings.register_profile("lithograph", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lithograph")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Where LITHO_TEST_BEGAN names a file, it holds the test that began last: a run ended for hanging can say in which.

    Where several processes share the tests, each has a file of its own, with the name of the process behind that name.
    """
    if path := os.environ.get("LITHO_TEST_BEGAN"):
        worker = os.environ.get("PYTEST_XDIST_WORKER", "")
        Path(f"{path}.{worker}" if worker else path).write_text(item.nodeid + "\n")
