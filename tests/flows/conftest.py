"""One Prefect server for the flow tests of a run."""

import pytest


@pytest.fixture(scope="session")
def prefect_server():
    """A server with an empty database, which is removed after the run."""
    from prefect.settings import (  # noqa: PLC0415 - two seconds, for flow tests alone
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_LOGGING_TO_API_ENABLED,
        PREFECT_SERVER_ANALYTICS_ENABLED,
        temporary_settings,
    )
    from prefect.testing.utilities import prefect_test_harness  # noqa: PLC0415

    quick = {
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        PREFECT_LOGGING_TO_API_ENABLED: False,
        PREFECT_SERVER_ANALYTICS_ENABLED: False,
    }
    with temporary_settings(quick), prefect_test_harness(server_startup_timeout=120):
        yield
