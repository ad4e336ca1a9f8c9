"""The two training loops: a target learns from text, a drafter learns from its target."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from .data import Batches

Loss = Callable[[Tensor], Tensor]  # (batch, context) token ids -> scalar


@dataclass
class Progress:
    """What a run has done so far; kept in the checkpoint and printed on the model card."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    loss: float = float("nan")
    held_out: dict[str, float] = field(default_factory=dict)


def llama(vocab_size: int, layers: int, width: int, heads: int, feed_forward: int, max_length: int) -> LlamaForCausalLM:
    """A randomly initialized Llama with tied embeddings; token 0 begins and ends a text."""
    config = LlamaConfig(
        vocab_size=vocab_size,
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=feed_forward,
        max_position_embeddings=max_length,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation="eager",  # on a CPU the backward pass of SDPA is the slower one
    )
    return LlamaForCausalLM(config)


def next_token_loss(model: PreTrainedModel) -> Loss:
    """Cross-entropy of each next token, in nats."""

    def loss(ids: Tensor) -> Tensor:
        logits = model(ids, use_cache=False).logits  # (batch, context, vocab)
        return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())

    return loss


def distillation_loss(drafter: PreTrainedModel, target: PreTrainedModel) -> Loss:
    """KL(target || drafter) at every position, in nats (Zhou et al. 2023, DistillSpec, section 4)."""

    def loss(ids: Tensor) -> Tensor:
        with torch.no_grad():
            p = F.log_softmax(target(ids, use_cache=False).logits.float(), dim=-1)
        q = F.log_softmax(drafter(ids, use_cache=False).logits.float(), dim=-1)
        return F.kl_div(q.flatten(0, 1), p.flatten(0, 1), reduction="batchmean", log_target=True)

    return loss


def optimizers(model: PreTrainedModel, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the weight matrices of the layers, AdamW for embeddings and norms."""
    inner = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    outer = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(inner, lr=lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(outer, lr=lr / 2, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def learning_rate(step: int, steps: int) -> float:
    """Share of the peak rate: a short warm-up, a plateau, and a straight line to 0 over the last half.

    The shape lets a resumed run end sooner or later than planned without having wasted a step.
    """
    return min((step + 1) / 50, 1.0, 2 * (steps - step) / steps)


def train(
    model: PreTrainedModel,
    loss_of: Loss,
    batches: Callable[[int], Tensor],
    *,
    name: str,
    steps: int,
    lr: float,
    device: str,
    checkpoint: Path,
    resume: bool,
    save_every: int = 100,
    compile: bool = True,
) -> Progress:
    """Minimize ``loss_of`` over ``batches(0), batches(1), …``; a checkpoint allows going on later.

    Returns:
        the finished run's :class:`Progress`; ``model`` holds the trained weights.
    """
    progress = Progress()
    opts = optimizers(model, lr)
    if resume and checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        for opt, opt_state in zip(opts, state["optimizers"], strict=True):
            opt.load_state_dict(opt_state)
        progress = Progress(**state["progress"])

    def save() -> None:
        state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in opts], "progress": vars(progress)}
        partial = checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(checkpoint)  # a run cut off while saving keeps the checkpoint before

    model.train()
    step_loss = torch.compile(loss_of) if compile else loss_of
    bar = tqdm(total=steps, initial=progress.step, desc=name, unit="step", dynamic_ncols=True)
    while progress.step < steps:
        began = time.perf_counter()
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = group.setdefault("peak_lr", group["lr"]) * learning_rate(progress.step, steps)
        ids = batches(progress.step).to(device)
        loss = step_loss(ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad(set_to_none=True)
        spent = time.perf_counter() - began
        value = loss.item()
        progress.loss = value if progress.step == 0 else 0.95 * progress.loss + 0.05 * value
        progress.step += 1
        progress.tokens += ids.numel()
        progress.seconds += spent
        bar.set_postfix(loss=f"{progress.loss:.3f}", tokens_s=f"{ids.numel() / spent:.0f}")
        bar.update()
        if progress.step % save_every == 0 or progress.step == steps:
            save()
    bar.close()
    model.eval()
    return progress


@torch.inference_mode()
def held_out_loss(loss_of: Loss, batches: Batches, device: str, count: int = 8) -> float:
    """Mean loss over ``count`` batches of text that was never trained on."""
    return sum(loss_of(batches(step).to(device)).item() for step in range(count)) / count


@torch.inference_mode()
def continuations(
    target: PreTrainedModel, prompts: Callable[[int], Tensor], windows: int, prompt_length: int
) -> Tensor:
    """Text in the target's own words: the drafter will be asked to guess that, not the corpus.

    Takes the first ``prompt_length`` ids of each window of ``prompts`` and lets the target write the
    rest, every other batch greedily, the others sampled at temperature 1.

    Returns:
        (windows, context) token ids.
    """
    rows: list[Tensor] = []
    made = 0
    with tqdm(total=windows, desc="continuations", unit="text", dynamic_ncols=True) as bar:
        while made < windows:
            ids = prompts(len(rows)).to(target.device)
            rows.append(
                target.generate(
                    ids[:, :prompt_length],
                    attention_mask=torch.ones_like(ids[:, :prompt_length]),
                    min_new_tokens=ids.shape[1] - prompt_length,
                    max_new_tokens=ids.shape[1] - prompt_length,
                    do_sample=len(rows) % 2 == 1,
                    top_k=0,
                    eos_token_id=[],  # never stop: after one story the next begins, as in the text
                    pad_token_id=0,
                )
            )
            made += len(ids)
            bar.update(len(ids))
    return torch.cat(rows)[:windows]
