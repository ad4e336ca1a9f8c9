"""What all tests share."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported: no test may touch the network

import pytest
import torch

from specdec_tutorial import load_pair

torch.set_num_threads(1)  # the models are too small for two


@pytest.fixture(scope="session")
def pair():
    """The embedded pair in float32."""
    return load_pair("stories")
