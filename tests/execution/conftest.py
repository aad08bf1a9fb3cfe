"""A sandbox in each mode that this host can start, and a way to find its processes."""

import uuid

import pytest

from daj_lightning.execution import sandbox as sandbox_module
from execution.programs import start


@pytest.fixture(params=["namespaces", "bubblewrap", "unsafe-local"], scope="session")
def mode(request):
    return request.param


@pytest.fixture(scope="session")
def sandbox(mode):
    return start(mode, test_wall_s=20, test_cpu_s=10, memory_mib=512)


@pytest.fixture
def marker(monkeypatch):
    """A word in the command line of every worker that the test starts, and of all their forks."""
    word = f"daj-test-{uuid.uuid4().hex}"
    monkeypatch.setattr(sandbox_module, "START", (*sandbox_module.START, word))
    return word
