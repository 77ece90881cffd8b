"""What the tests of training share."""

import pytest
import torch


@pytest.fixture
def cores(monkeypatch):
    """Has as many parts made of a batch as are asked for, however small they are."""

    def make(number):
        monkeypatch.setattr("rnnclf.engine.parts.LEAST", 1)
        monkeypatch.setattr("rnnclf.engine.parts.WORTH", 1)
        torch.set_num_threads(number)

    before = torch.get_num_threads()
    yield make
    torch.set_num_threads(before)
