"""What all tests share: where the real data is, and Hypothesis without deadlines (a busy machine is no failure)."""

import os
from pathlib import Path

# Networks in tests are tiny: threads that wait for each other should sleep almost at once. On a busy machine the tests
# of the command line then take a half to a tenth of the time. Read when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import pytest
from hypothesis import settings

settings.register_profile("default", deadline=None)
settings.load_profile("default")

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests neither find nor leave anything in the user's cache."""
    os.environ["TESSEREC_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def real_data() -> Path:
    """The folder of the public research data sets; skips, saying so, where it is absent."""
    folder = Path(os.environ.get("TESSEREC_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no research data at {folder}; set TESSEREC_DATA to their folder")
    return folder
