"""Text in, batches of token ids out."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
HELD_OUT_EVERY = 50  # one document in fifty is never trained on


@dataclass(frozen=True)
class Documents:
    """The documents of one source, split once and for all into training and held-out text."""

    train: list[str]
    held_out: list[str]


def read_sources(source: str, text_field: str = "text") -> dict[str, Documents]:
    """Read a folder of ``.txt`` files, or a data set of the Hugging Face Hub.

    Args:
        source: a folder whose ``.txt`` files hold documents separated by a line ``<|endoftext|>``
            (each file is one source), or a hub data set id such as ``roneneldan/TinyStories``.
        text_field: the column of a hub data set that holds the text.

    Returns:
        source name -> its documents. The held-out part is chosen by a checksum of the text, so it
        is the same in every run.

    Raises:
        ModuleNotFoundError: a hub id was given and ``datasets`` is not installed.
        FileNotFoundError: there is no such folder, or it holds no ``.txt`` file with text in it.
    """
    folder = Path(source)
    if folder.is_dir():
        raw = {f.stem: f.read_text("utf-8").split(END_OF_TEXT) for f in sorted(folder.glob("*.txt"))}
    elif source.count("/") != 1 or source[0] in "./~":
        raise FileNotFoundError(f"there is no folder {source!r}, and a data set id of the hub looks like owner/name")
    else:
        try:
            from datasets import load_dataset  # heavy, and needed only for hub ids
        except ModuleNotFoundError:
            raise ModuleNotFoundError('a hub data set needs the extra: pip install "specdec-tutorial[train]"') from None
        raw = {source.rsplit("/", 1)[-1]: load_dataset(source, split="train")[text_field]}
    sources = {}
    for name, texts in raw.items():
        parts: tuple[list[str], list[str]] = ([], [])
        for text in filter(None, (text.strip() for text in texts)):
            parts[zlib.crc32(text.encode()) % HELD_OUT_EVERY == 0].append(text)
        if parts[0]:
            sources[name] = Documents(*parts)
    if not sources:
        raise FileNotFoundError(f"no .txt file with text in the folder {source!r}")
    return sources


def train_tokenizer(sources: dict[str, Documents], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE (every string has an encoding, so no unknown token) with ``<|endoftext|>`` as id 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((t for d in sources.values() for t in d.train), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, clean_up_tokenization_spaces=False
    )


@dataclass(frozen=True)
class TokenStream:
    """All documents of one source in one row of token ids, each followed by ``<|endoftext|>``."""

    ids: torch.Tensor  # (tokens,)
    starts: torch.Tensor  # (documents,) where each document begins

    @classmethod
    def encode(cls, texts: list[str], tokenizer: PreTrainedTokenizerFast) -> TokenStream:
        encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
        rows = [torch.tensor([*ids, tokenizer.eos_token_id]) for ids in encoded]
        lengths = torch.tensor([0] + [len(row) for row in rows])
        return cls(torch.cat(rows), lengths.cumsum(0)[:-1])


class Batches:
    """Random windows of text: batch number ``step`` is a pure function of the seed and ``step``.

    That makes a resumed run see exactly the text that an uninterrupted one would have seen. Half of
    the windows begin where a document begins, because that is where a reader's prompt will stand.
    """

    def __init__(self, streams: list[TokenStream], weights: list[float], batch: int, context: int, seed: int):
        for stream in streams:
            if len(stream.ids) <= context:
                raise ValueError(f"a source has {len(stream.ids)} tokens, less than one window of {context}")
        self.streams, self.weights = streams, torch.tensor(weights, dtype=torch.float)
        self.batch, self.context, self.seed = batch, context, seed

    def __call__(self, step: int) -> torch.Tensor:
        rng = torch.Generator().manual_seed(1_000_003 * self.seed + step)  # torch reads the low 32 bits only
        picks = torch.multinomial(self.weights, self.batch, replacement=True, generator=rng)
        return torch.stack([self._window(self.streams[i], rng) for i in picks.tolist()])  # (batch, context)

    def _window(self, stream: TokenStream, rng: torch.Generator) -> torch.Tensor:
        limit = len(stream.ids) - self.context
        at_start = torch.rand((), generator=rng) < 0.5
        offset = torch.randint(limit, (), generator=rng)
        if at_start:
            offset = stream.starts[torch.randint(len(stream.starts), (), generator=rng)].clamp(max=limit)
        return stream.ids[offset : offset + self.context]
