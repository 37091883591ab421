"""What several files of tests ask for."""

import pytest
import torch


@pytest.fixture
def seed() -> None:
    """The same random numbers for a test whatever ran before it."""
    torch.manual_seed(0)
