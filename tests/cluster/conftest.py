"""A real cluster for the tests of a module that share it: three primaries, three replicas."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster.harness import Cluster, real_cluster


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    """One that nobody harms."""
    with real_cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Cluster:
    """The shared one, empty."""
    shared_cluster.flush()
    return shared_cluster
