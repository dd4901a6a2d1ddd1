"""A real cluster for tests that do it no harm: three primaries, three replicas."""

from __future__ import annotations

import pytest
from cluster.harness import Cluster


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Cluster:
    """The shared one, empty."""
    shared_cluster.flush()
    return shared_cluster
