"""The console script ``specdec``: a race of two decoders, and a benchmark of four."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

try:
    import rich  # noqa: F401
    import typer
except ModuleNotFoundError as error:  # the console script exists even where its extra was not installed
    print(f'specdec needs {error.name}: pip install "specdec-tutorial[cli]"', file=sys.stderr)
    raise SystemExit(2) from None

import torch
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.style import Style
from rich.table import Table
from rich.text import Text
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from . import benchmark
from .autoregressive import autoregressive_generate
from .models import ModelPair, load_pair
from .palette import ACCEPTED, DRAFTER, REJECTED, TARGET
from .processors import (
    GreedyProcessor,
    LogitsProcessor,
    MultinomialProcessor,
    NucleusProcessor,
    TopKNucleusProcessor,
    TopKProcessor,
)
from .race import Lane, figure, frame, heading, lane, legend, print_result, replay, slowdown
from .speculative import speculative_generate

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_show_locals=False)

PairOption = Annotated[str, typer.Option(help="An embedded pair, or a folder with target/ and drafter/ in it.")]
GammaOption = Annotated[int, typer.Option(help="Tokens drafted in a round.")]
LengthOption = Annotated[int, typer.Option(help="Most new tokens for a prompt.")]
ThreadsOption = Annotated[int | None, typer.Option(help="CPU threads; default 2, or 1 where there is no second.")]


class Processor(StrEnum):
    """Names of the logits processors."""

    greedy = "greedy"
    multinomial = "multinomial"
    top_k = "top-k"
    nucleus = "nucleus"
    top_k_nucleus = "top-k-nucleus"


@app.callback()
def main() -> None:
    """Speculative decoding in the terminal: the same tokens, in less time."""


@app.command()
def race(
    prompt: Annotated[str, typer.Argument(help="Text to continue; - reads it from standard input.")],
    pair: PairOption = "stories",
    gamma: GammaOption = 4,
    max_gen_len: LengthOption = 64,
    processor: Annotated[Processor, typer.Option(help="How to draw from the logits.")] = Processor.greedy,
    temperature: Annotated[float | None, typer.Option(help="For all but greedy; default 1.")] = None,
    top_k: Annotated[int | None, typer.Option(help="For top-k and top-k-nucleus; default 50.")] = None,
    top_p: Annotated[float | None, typer.Option(help="For nucleus and top-k-nucleus; default 0.9.")] = None,
    seed: Annotated[int, typer.Option(help="Fixes the random numbers.")] = 0,
    slow: Annotated[
        float | None, typer.Option(help="Replay so many times slower; default: as the eye needs it.")
    ] = None,
    no_replay: Annotated[bool, typer.Option("--no-replay", help="Show the end only, as in a pipe.")] = False,
    threads: ThreadsOption = None,
) -> None:
    """Decode a text twice, one token at a time and speculatively, and watch both side by side.

    Example: specdec race "Once upon a time"
    """
    console = Console(highlight=False)
    with one_line_errors():
        text = sys.stdin.read().rstrip("\n") if prompt == "-" else prompt
        if not text.strip():
            raise ValueError("the prompt is empty; give a few words to continue")
        if slow is not None and not slow > 0:
            raise ValueError(f"slow must be positive, got {slow}")
        set_threads(threads)
        drawing = make_processor(processor, temperature, top_k, top_p)
        models = load_quietly(pair)
        with console.status("decoding, one after the other …"):
            lanes = run_race(models, text, gamma, max_gen_len, drawing, seed)
    factor = slow or slowdown(lanes)
    animated = console.is_terminal and not console.is_dumb_terminal and not no_replay
    console.print(heading(models.name, processor, animated, factor))
    if animated:
        replay(lanes, console, factor)
    console.print(frame(lanes, max(one.seconds for one in lanes), console))
    console.print(legend(console))
    if not print_result(console, lanes, isinstance(drawing, GreedyProcessor)):
        raise typer.Exit(1)


def make_processor(
    name: Processor, temperature: float | None, top_k: int | None, top_p: float | None
) -> LogitsProcessor:
    """The processor of that name.

    Raises:
        ValueError: an option that it has no use for, or a value out of range.
    """
    uses = {
        Processor.greedy: (),
        Processor.multinomial: ("temperature",),
        Processor.top_k: ("temperature", "top-k"),
        Processor.nucleus: ("temperature", "top-p"),
        Processor.top_k_nucleus: ("temperature", "top-k", "top-p"),
    }[name]
    for option, value in {"temperature": temperature, "top-k": top_k, "top-p": top_p}.items():
        if value is not None and option not in uses:
            raise ValueError(f"--{option} has no effect on the processor {name}; choose another with --processor")
    heat, k, mass = (default if x is None else x for x, default in ((temperature, 1.0), (top_k, 50), (top_p, 0.9)))
    if name is Processor.greedy:
        return GreedyProcessor()
    if name is Processor.multinomial:
        return MultinomialProcessor(heat)
    if name is Processor.top_k:
        return TopKProcessor(int(k), heat)
    if name is Processor.nucleus:
        return NucleusProcessor(mass, heat)
    return TopKNucleusProcessor(int(k), mass, heat)


def run_race(
    pair: ModelPair, prompt: str, gamma: int, max_gen_len: int, processor: LogitsProcessor, seed: int
) -> list[Lane]:
    """Decode one after the other, warm; return what is to be shown."""
    ids = pair.tokenizer(prompt)["input_ids"]
    for length in (min(max_gen_len, 8), max_gen_len):  # the first time warms up
        plain = autoregressive_generate(ids, pair.target, logits_processor=processor, max_gen_len=length, seed=seed)
        guessed = speculative_generate(
            ids, pair.drafter, pair.target, gamma=gamma, logits_processor=processor, max_gen_len=length, seed=seed
        )
    return [
        lane("autoregressive", TARGET, ids, plain, pair.tokenizer),
        lane(f"speculative, γ = {gamma}", DRAFTER, ids, guessed, pair.tokenizer),
    ]


@app.command()
def bench(
    pair: PairOption = "stories",
    gamma: GammaOption = 4,
    max_gen_len: LengthOption = 64,
    repeats: Annotated[int, typer.Option(help="How often everything is measured.")] = 5,
    prompts: Annotated[Path | None, typer.Option(help="Text file with a prompt on each line.")] = None,
    threads: ThreadsOption = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write all figures to this file.")] = None,
) -> None:
    """Compare four decoders side by side: speed, overhead, and whether they write the same tokens.

    Exit code 1 says that they do not.
    """
    console, errors = Console(highlight=False), Console(stderr=True)
    with one_line_errors():
        texts = benchmark.PROMPTS if prompts is None else read_prompts(prompts)
        set_threads(threads)
        if json_file is not None:
            json_file.touch()  # find out now, not after minutes
        began = time.perf_counter()
        models = load_quietly(pair)
        load_seconds = time.perf_counter() - began
        with Progress(console=errors, transient=True, disable=not errors.is_terminal) as bar:
            task = bar.add_task("measuring", total=4 * len(texts) * repeats)
            report = benchmark.measure(
                models, texts, gamma=gamma, max_gen_len=max_gen_len, repeats=repeats, progress=lambda: bar.advance(task)
            )
    report.load_seconds = load_seconds
    print_report(console, report, models)
    if json_file is not None:
        json_file.write_text(json.dumps(report.as_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if not report.identical:
        raise typer.Exit(1)


def print_report(console: Console, report: benchmark.Report, pair: ModelPair) -> None:
    """Print the table of ratios, what explains them, and every difference between the texts."""
    asked = report.settings
    gamma, v = asked["gamma"], f"v({asked['gamma'] + 1})"
    console.print(
        f"{asked['pair']}, greedy, γ = {gamma}: {len(asked['prompts'])} prompts of up to {asked['max_gen_len']} new "
        f"tokens, {asked['repeats']} interleaved repeats, CPU threads: {asked['threads']}",
        style=Style(dim=True),
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("decoder", "speed ratio", "tokens/s", "overhead", "same"):
        table.add_column(column, justify="left" if column == "decoder" else "right", no_wrap=True)
    wrong = {difference.decoder for difference in report.differences}
    for name, score in report.scores.items():
        ratio = "1" if name == benchmark.REFERENCE else spread(score.ratio, ".2f")
        same = Text("no", Style(color=REJECTED, bold=True)) if name in wrong else Text("yes", Style(color=ACCEPTED))
        table.add_row(name, ratio, spread(score.tokens_per_second, ".0f"), f"{score.overhead.median:.1%}", same)
    console.print(table)
    console.print(
        f"acceptance {figure(report.acceptance_rate)} · {figure(report.tokens_per_round)} tokens a round · "
        f"c = {figure(report.c, 3)} · {v} = {figure(report.v)}"
    )
    console.print(f"ratio to expect after the prompt: tokens a round / (γ c + {v}) = {figure(report.expected_ratio)}")
    console.print(f"pair loaded in {figure(report.load_seconds)} s")
    console.print(
        "Every figure: median of the repeats (lowest–highest). Speed ratio: tokens/s relative to autoregressive in "
        "the same repeat. Overhead: share of time outside the models' forward passes. "
        f"c, {v}: time for one drafted token and for checking {gamma}, in autoregressive tokens.",
        style=Style(dim=True),
    )
    for d in report.differences:
        console.print(Text("≠ ", Style(color=REJECTED)), describe(d, pair))
    verdict = (
        "All decoders wrote the same tokens." if report.identical else "The decoders did not write the same tokens."
    )
    console.print(Text(verdict, Style(color=ACCEPTED if report.identical else REJECTED, bold=True)))


def describe(difference: benchmark.Difference, pair: ModelPair) -> str:
    """A difference in words."""
    ours, theirs = (
        "the end" if token is None else repr(pair.tokenizer.decode([token]))
        for token in (difference.token, difference.expected)
    )
    cause = "a tie: float32 cannot tell the two apart" if difference.is_tie else "not a tie"
    gap = "" if math.isnan(difference.gap) else f"; logits {difference.gap:.2g} apart in float64, {cause}"
    place = f"prompt {difference.prompt + 1}, new token {difference.position + 1}"
    return f"{difference.decoder}, {place}: {ours} instead of {theirs}{gap}"


def spread(values: benchmark.Spread, form: str) -> str:
    """Median and range."""
    return f"{values.median:{form}} ({values.low:{form}}–{values.high:{form}})"


def read_prompts(path: Path) -> list[str]:
    """The lines of a text file that are not blank."""
    prompts = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not prompts:
        raise ValueError(f"there is no prompt in {path}; write one on each line")
    return prompts


def load_quietly(name: str) -> ModelPair:
    """Load a pair without transformers' progress bars and advice."""
    disable_progress_bar()
    set_verbosity_error()
    return load_pair(name)


def set_threads(threads: int | None) -> None:
    """Fix the number of CPU threads: small models gain nothing from more than two."""
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    torch.set_num_threads(threads or min(2, torch.get_num_threads()))


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Say what is wrong with the input in one line on stderr, and exit with code 2."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        message = " ".join(str(error).split())
        Console(stderr=True, highlight=False).print(Text("error: ", Style(bold=True)) + Text(message), soft_wrap=True)
        raise typer.Exit(2) from None
