"""A tiny judge as `export` leaves it, for all tests of serving."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiny_judge import make_judge


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers "<selection>1</selection>" or 2, knowing nothing."""
    return make_judge(tmp_path_factory.mktemp("tiny") / "made")
