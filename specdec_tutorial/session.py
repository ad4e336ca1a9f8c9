"""A model together with everything it has read.

Decoding feeds a model tokens, looks at its logits and sometimes takes tokens back. A session gives
exactly these verbs and owns the key-value cache; no other module touches one.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicSlidingWindowLayer, LinearAttentionCacheLayerMixin


class DecodingSession:
    """Wraps a decoder-only transformers model; reads tokens, returns logits, forgets on request.

    Args:
        model: any transformers causal language model. It is used as it is; put it in ``eval`` mode.
        use_cache: keep keys and values of what was read (default). Without, the whole prefix is read
            again every time: slow, simple, and the reference that cached decoding is tested against.

    Raises:
        ValueError: ``use_cache`` is on and the model takes no ``past_key_values``.

    Attributes:
        tokens: ``(batch, length)`` ids read so far.
        positions_read: positions fed to the model so far, over all calls (of one row of the batch).
        seconds: wall time spent inside the model. On a GPU this is the time to *launch* the work.
    """

    def __init__(self, model: PreTrainedModel, use_cache: bool = True):
        self.model = model
        self.use_cache = use_cache
        self.device = model.device  # transformers searches the parameters for it: too slow to ask every time
        parameters = inspect.signature(model.forward).parameters
        if use_cache and "past_key_values" not in parameters:
            raise ValueError(f"{type(model).__name__} takes no key-value cache; pass use_cache=False")
        self._can_trim_logits = "logits_to_keep" in parameters
        self.positions_read = 0
        self.seconds = 0.0
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.tokens = torch.empty((1, 0), dtype=torch.long, device=self.device)
        self._cache = self._new_cache() if self.use_cache else None
        self._floor = 0  # a rollback to a shorter length than this must read the prefix again

    def _new_cache(self) -> DynamicCache:
        cache = DynamicCache(config=self.model.config)
        cache.activate_past_recording()  # or sliding-window layers throw away what a rollback needs
        return cache

    @property
    def length(self) -> int:
        """Number of tokens read (and not taken back)."""
        return self.tokens.shape[1]

    @property
    def can_roll_back(self) -> bool:
        """False for models that fold the past into a recurrent state, from which nothing can be removed."""
        return self._cache is None or not any(isinstance(x, LinearAttentionCacheLayerMixin) for x in self._cache.layers)

    def require_rollback(self) -> None:
        """Raise before any work is done if this session cannot take tokens back.

        Raises:
            ValueError: the model's cache has recurrent layers.
        """
        if not self.can_roll_back:
            raise ValueError(
                f"{type(self.model).__name__} keeps a recurrent state that cannot be rolled back, and speculative "
                "decoding must take rejected tokens back; pass use_cache=False to read the prefix again instead"
            )

    def extend(self, tokens: Tensor | Sequence[int], last: int = 0) -> Tensor:
        """Read new tokens.

        Args:
            tokens: ``(n,)`` or ``(batch, n)`` ids, n >= 1.
            last: return logits for this many last positions only (0: for all n); saves memory on a prompt.

        Returns:
            ``(batch, last or n, vocab)`` logits; row i is the prediction of what follows the i-th of them.

        Raises:
            ValueError: there is no token to read.
        """
        new = torch.as_tensor(tokens, dtype=torch.long, device=self.device)
        if new.numel() == 0:
            raise ValueError("nothing to read; for the last prediction once more, roll back by one token and extend")
        new = new.view(-1, new.shape[-1])  # (batch, n)
        self.tokens = torch.cat([self.tokens.expand(new.shape[0], -1), new], dim=1)
        wanted = last or new.shape[1]
        fed = new if self.use_cache else self.tokens
        began = time.perf_counter()
        logits = self._forward(fed, wanted)
        self.seconds += time.perf_counter() - began
        self.positions_read += fed.shape[1]
        return logits[:, -wanted:]  # a model that cannot trim returns a row for every position

    def _forward(self, fed: Tensor, wanted: int) -> Tensor:
        trim = {"logits_to_keep": wanted} if self._can_trim_logits else {}
        cached = {"past_key_values": self._cache} if self.use_cache else {}
        return self.model(fed, use_cache=self.use_cache, **cached, **trim).logits

    def rollback(self, length: int) -> None:
        """Forget all tokens after the first ``length``; does nothing when there are none.

        Raises:
            ValueError: ``length`` is negative or longer than what was read.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot roll back to length {length}: {self.length} tokens were read")
        surplus = self.length - length
        if surplus == 0:  # crop(0) is not a no-op for every kind of layer
            return
        kept = self.tokens[:, :length]
        if self._cache is None:
            self.tokens = kept
        elif length < self._floor or not self.can_roll_back:
            self.reset()
            if length:
                self.extend(kept, last=1)
        else:
            sliding = [x for x in self._cache.layers if isinstance(x, DynamicSlidingWindowLayer)]
            if any(self.length >= x.sliding_window for x in sliding):
                self._floor = length  # cropping also drops what now lies before the window
            self._cache.crop(-surplus)
            self.tokens = kept

    def reorder(self, indices: Tensor) -> None:
        """Select rows of the batch: row i becomes what row ``indices[i]`` was (beams).

        Args:
            indices: ``(new_batch,)`` row numbers; a row may be taken several times or not at all.
        """
        self.tokens = self.tokens[indices]
        if self._cache is not None:
            self._cache.reorder_cache(indices)  # batch_select_indices fails on recurrent layers


def position_limit(model: PreTrainedModel) -> int:
    """Most tokens the model can hold, by its configuration; unbounded if that does not say."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize
