"""Decoding with transformers, step by step: the companion package of the book.

For example::

    from specdec_tutorial import load_pair, speculative_generate

    pair = load_pair("stories")
    ids = pair.tokenizer("Once upon a time")["input_ids"]
    print(pair.tokenizer.decode(speculative_generate(ids, pair.drafter, pair.target).tokens))
"""

from .autoregressive import autoregressive_generate
from .drafters import Draft, Drafter, ModelDrafter
from .hooks import speculative_custom_generate
from .models import ModelPair, check_same_tokenizer, load_pair
from .processors import (
    GreedyProcessor,
    LogitsProcessor,
    MultinomialProcessor,
    NucleusProcessor,
    TopKNucleusProcessor,
    TopKProcessor,
    sample,
)
from .session import DecodingSession
from .speculative import speculate, speculative_generate
from .trace import Generation, Round, Trace
from .verification import Verdict, Verifier, verify_tokens

__version__ = "0.1.0"

__all__ = [
    "DecodingSession",
    "Draft",
    "Drafter",
    "Generation",
    "GreedyProcessor",
    "LogitsProcessor",
    "ModelDrafter",
    "ModelPair",
    "MultinomialProcessor",
    "NucleusProcessor",
    "Round",
    "TopKNucleusProcessor",
    "TopKProcessor",
    "Trace",
    "Verdict",
    "Verifier",
    "autoregressive_generate",
    "check_same_tokenizer",
    "load_pair",
    "sample",
    "speculate",
    "speculative_custom_generate",
    "speculative_generate",
    "verify_tokens",
]
