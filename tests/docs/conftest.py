"""The guides are tried on the cloud of the system tests."""

import pytest

from local.cloud import LocalCloud


@pytest.fixture(scope="session")
def cloud(running_cloud: LocalCloud) -> LocalCloud:
    return running_cloud
