"""Pairs of models that share a tokenizer: the embedded one, or a folder of your own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

PRETRAINED = Path(__file__).parent / "pretrained"


@dataclass(frozen=True)
class ModelPair:
    """A target, a drafter and the tokenizer of both.

    Attributes:
        name: what the pair was loaded as.
        target: the model whose text is wanted (p).
        drafter: the small model that guesses (q).
        tokenizer: turns text into token ids and back.
    """

    name: str
    target: PreTrainedModel
    drafter: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def embedded_pairs() -> list[str]:
    """Names of the pairs that ship with the package."""
    return sorted(folder.name for folder in PRETRAINED.iterdir() if (folder / "target").is_dir())


def load_pair(name: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> ModelPair:
    """Load an embedded pair, or a folder with ``target/`` and ``drafter/`` in it; never touches the network.

    Args:
        name: ``"stories"``, or the path of a folder such as ``python -m specdec_tutorial.training`` writes.
        device: where to put both models.
        dtype: weights are converted to it; float32 by default.

    Returns:
        the pair, in ``eval`` mode.

    Raises:
        ValueError: no such pair, or the two models have different tokenizers.
    """
    folder = PRETRAINED / name if str(name) in embedded_pairs() else Path(name)
    if not (folder / "target").is_dir() or not (folder / "drafter").is_dir():
        raise ValueError(
            f"no pair named {str(name)!r}: the embedded pairs are {', '.join(embedded_pairs())}; "
            "otherwise give a folder that holds target/ and drafter/"
        )
    tokenizers = [AutoTokenizer.from_pretrained(folder / role, local_files_only=True) for role in ("target", "drafter")]
    check_same_tokenizer(*tokenizers)
    target, drafter = (
        AutoModelForCausalLM.from_pretrained(folder / role, local_files_only=True, dtype=dtype).to(device).eval()
        for role in ("target", "drafter")
    )
    return ModelPair(str(name), target, drafter, tokenizers[0])


def check_same_tokenizer(target: PreTrainedTokenizerBase, drafter: PreTrainedTokenizerBase) -> None:
    """Raise ValueError unless both tokenizers give every token the same id."""
    ours, theirs = target.get_vocab(), drafter.get_vocab()
    if ours == theirs:
        return
    differing = sum(theirs.get(token) != index for token, index in ours.items())
    raise ValueError(
        f"target and drafter have different tokenizers ({len(ours)} and {len(theirs)} tokens, {differing} of the "
        "target's have another id or none in the drafter's), so their token ids mean different things; "
        "choose models of one family"
    )
