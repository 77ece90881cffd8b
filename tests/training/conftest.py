"""What the tests of training share."""

import pytest
import torch

from rnnclf.engine.parts import Worth


@pytest.fixture
def cores(monkeypatch):
    """Has as many parts made of a batch as are asked for, however small they are."""

    def make(number):
        monkeypatch.setattr(Worth, "most_parts", lambda worth, batch, work: batch)
        torch.set_num_threads(number)

    before = torch.get_num_threads()
    yield make
    torch.set_num_threads(before)
