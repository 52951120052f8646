"""The library, once for all tests here."""

import pytest

from c_library import Library, install


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """As users get it."""
    return install(tmp_path_factory.mktemp("prefix"))
