from pathlib import Path

import pytest

from serving.demo.prepare import prepare_sentiment


@pytest.fixture(scope="session")
def sentiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The assembled sentiment checkpoint."""
    return prepare_sentiment(tmp_path_factory.mktemp("demo"))
