"""The model card: what was trained, on what, how, and how well. Written by the run itself."""

from __future__ import annotations

import platform
from pathlib import Path

import torch
import transformers

from .data import Documents
from .optimize import Progress

# Known training texts; any other source is described as the user's own.
LICENSES = {
    "tinystories": "[TinyStories](https://huggingface.co/datasets/roneneldan/TinyStories), CDLA-Sharing-1.0",
    "children_classics": "children's books first published before 1929, public domain in the United States",
    "asp_pb_stories": "African Storybook and Pratham Books, CC BY, attributed in `asp_pb_attribution.tsv`",
}


def describe_hardware(device: str) -> str:
    """One line that tells what the training ran on."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads ({platform.machine()})"


def model_row(name: str, model: transformers.PreTrainedModel, progress: Progress) -> str:
    """One row of the card's table."""
    c = model.config
    held_out = ", ".join(f"{source} {loss:.3f}" for source, loss in progress.held_out.items())
    return (
        f"| {name} | {c.num_hidden_layers} × {c.hidden_size}, {c.num_attention_heads} heads, "
        f"feed-forward {c.intermediate_size} | {model.num_parameters() / 1e6:.2f} M | {progress.step} "
        f"| {progress.tokens / 1e6:.2f} M | {progress.seconds / 60:.0f} min | {held_out} |"
    )


def write_card(
    folder: Path,
    name: str,
    sources: dict[str, Documents],
    weights: dict[str, float],
    settings: dict[str, object],
    rows: list[str],
    device: str,
) -> None:
    """Write ``README.md`` into ``folder``."""
    data = "\n".join(
        f"- `{source}`: {LICENSES.get(source, 'text supplied by the user')}; {len(d.train)} documents, "
        f"{sum(map(len, d.train)) / 1e6:.2f} M characters trained on, {len(d.held_out)} documents held out; "
        f"weight {weights[source]:g}"
        for source, d in sources.items()
    )
    recipe = "\n".join(f"| {key.replace('_', ' ')} | {value} |" for key, value in settings.items())
    table = "\n".join(rows)
    (folder / "README.md").write_text(
        f"""\
# The pair `{name}`

A small Llama-architecture language model (the target, p) and a one-layer model distilled from it (the drafter, q).
They share one byte-level BPE. They write simple English stories and exist to show decoding algorithms at work;
they know nothing about the world and are not fit for anything else.

## Training text

{data}

A window of text comes from a source in proportion to its weight. One document in fifty was held out.

## Results

The target's loss is cross-entropy, the drafter's is KL(target ‖ drafter); both are in nats per token, on held-out text.

| model | shape | parameters | steps | tokens | time | held-out loss |
|---|---|---|---|---|---|---|
{table}

Hardware: {describe_hardware(device)}. torch {torch.__version__}, transformers {transformers.__version__}.

## Recipe

Trained with `python -m specdec_tutorial.training` and these settings:

| setting | value |
|---|---|
{recipe}

Optimizer: Muon for the layers' weight matrices, AdamW for embeddings and norms; learning rate warmed up over
50 steps, then constant, then falling in a straight line to zero over the second half of the steps.
The drafter saw text and the target's own continuations in turn.

This file was written by the training run.
""",
        "utf-8",
    )
