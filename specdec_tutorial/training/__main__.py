"""The command ``python -m specdec_tutorial.training``."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

try:
    import typer
except ModuleNotFoundError:
    print('training needs typer: pip install "specdec-tutorial[train]"', file=sys.stderr)
    raise SystemExit(2) from None
import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from . import card, data, optimize

app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)


def parse_weights(specs: list[str], sources: dict[str, data.Documents]) -> dict[str, float]:
    """``["tinystories=8"]`` -> a weight for every source; one that is not named gets 1."""
    weights = dict.fromkeys(sources, 1.0)
    for spec in specs:
        name, _, value = spec.partition("=")
        if name not in sources:
            raise typer.BadParameter(f"no source {name!r}; the sources are {', '.join(sources)}")
        weights[name] = float(value)
    return weights


@app.command()
def main(
    text: Annotated[str, typer.Argument(help="Folder of .txt files, or a data set id of the Hugging Face Hub.")],
    out: Annotated[Path, typer.Option(help="Folder to write to: target/, drafter/, README.md and checkpoints.")],
    name: Annotated[str, typer.Option(help="What the model card calls the pair.")] = "stories",
    weight: Annotated[list[str], typer.Option(help="SOURCE=NUMBER: how often text of this file is drawn.")] = [],  # noqa: B006
    steps: Annotated[int, typer.Option(help="Training steps of the target.")] = 1500,
    drafter_steps: Annotated[int, typer.Option(help="Distillation steps of the drafter.")] = 800,
    layers: Annotated[int, typer.Option(help="Layers of the target.")] = 20,
    width: Annotated[int, typer.Option(help="Width of the target.")] = 256,
    drafter_width: Annotated[int, typer.Option(help="Width of the one-layer drafter.")] = 192,
    context: Annotated[int, typer.Option(help="Tokens in a training window.")] = 384,
    batch: Annotated[int, typer.Option(help="Windows in a training step.")] = 16,
    lr: Annotated[float, typer.Option(help="Peak learning rate of Muon; AdamW gets half of it.")] = 5e-3,
    vocab_size: Annotated[int, typer.Option(help="Tokens in the vocabulary.")] = 4096,
    own_texts: Annotated[int, typer.Option(help="Continuations the target writes for the drafter.")] = 1536,
    seed: Annotated[int, typer.Option(help="Fixes initial weights and the order of the text.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")] = "cpu",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in OUT.")] = False,
    compile: Annotated[bool, typer.Option(help="Compile the models first; pays after a few minutes.")] = True,
) -> None:
    """Train a pair of models for speculative decoding: a tokenizer, a target, and a drafter distilled from it.

    Example: python -m specdec_tutorial.training my_texts --out my_pair --weight novels=0.5

    Afterwards load_pair("my_pair") decodes with them.
    """
    settings: dict[str, object] = {k: v for k, v in locals().items() if k not in ("text", "out", "resume", "device")}
    sources = data.read_sources(text)
    weights = parse_weights(weight, sources)
    settings["weight"] = ", ".join(weight) or "1 each"

    out.mkdir(parents=True, exist_ok=True)
    if resume and (out / "target" / "tokenizer.json").exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(out / "target")
    else:
        tokenizer = data.train_tokenizer(sources, vocab_size)
    for role in ("target", "drafter"):
        tokenizer.save_pretrained(out / role)

    streams = [data.TokenStream.encode(d.train, tokenizer) for d in sources.values()]
    mixed = partial(data.Batches, streams, list(weights.values()), context=context)
    held_out = {
        source: data.Batches([stream], [1.0], batch, context, seed)
        for source, d in sources.items()
        if d.held_out and len((stream := data.TokenStream.encode(d.held_out, tokenizer)).ids) > context
    }

    torch.manual_seed(seed)
    max_length = context + context // 3  # rotary positions carry a little past what was trained
    target = optimize.llama(len(tokenizer), layers, width, width // 64, width * 11 // 4, max_length).to(device)
    drafter = optimize.llama(len(tokenizer), 1, drafter_width, drafter_width // 64, drafter_width * 4, max_length).to(
        device
    )

    def fit(
        role: str, model: LlamaForCausalLM, loss_of: optimize.Loss, batches: Callable[[int], Tensor], n: int
    ) -> str:
        checkpoint = out / f"{role}.checkpoint"
        progress = optimize.train(
            model, loss_of, batches, name=role, steps=n, lr=lr, device=device,
            checkpoint=checkpoint, resume=resume, compile=compile,
        )  # fmt: skip
        progress.held_out = {s: optimize.held_out_loss(loss_of, b, device) for s, b in held_out.items()}
        model.to(torch.bfloat16).save_pretrained(out / role)
        model.float()
        return card.model_row(role, model, progress)

    rows = [fit("target", target, optimize.next_token_loss(target), mixed(batch=batch, seed=seed), steps)]

    own_file = out / "continuations.pt"
    if not (resume and own_file.exists()):
        torch.save(optimize.continuations(target, mixed(batch=64, seed=seed + 1), own_texts, prompt_length=8), own_file)
    own = torch.load(own_file, weights_only=True).split(batch)
    text_batches = mixed(batch=batch, seed=seed + 2)

    def text_and_own(step: int) -> Tensor:
        return text_batches(step) if step % 2 else own[step // 2 % len(own)]

    rows.append(fit("drafter", drafter, optimize.distillation_loss(drafter, target), text_and_own, drafter_steps))
    for attribution in Path(text).glob("*attribution*"):  # texts under CC BY ask for it
        shutil.copy(attribution, out)
    card.write_card(out, name, sources, weights, settings, rows, device)


if __name__ == "__main__":
    app()
