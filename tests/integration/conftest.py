"""What the tests of the main job share: a site, a plain disk, an image of it. Made once a file, when a test asks for them.

A file that needs another site, or another disk, defines a fixture of the same name for itself.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.site import Bench, plain_disk, running, source


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A site that runs, with the nodes n01 to n20."""
    with running(tmp_path_factory.mktemp("site")) as made:
        yield made


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where disk images lie."""
    return tmp_path_factory.mktemp("disks")


@pytest.fixture(scope="module")
def plain(disks: Path) -> Iterator[Path]:
    """A disk with one partition of incompressible content."""
    with source(plain_disk(disks)) as disk:
        yield disk


@pytest.fixture(scope="module")
def golden(bench: Bench, plain: Path) -> str:
    """The name of an image of the plain disk."""
    bench.captured("n01", "golden", plain)
    return "golden"
