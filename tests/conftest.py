"""What holds for all tests: no network, so that a mistake shows here as it would on a train."""

import os

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported, which reads it then


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A folder of the test's own for decoded images, and nothing open from the test before."""
    from vitrail.data import cache

    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    yield
    cache._open.clear()
