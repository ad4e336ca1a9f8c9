"""A tiny run of the training command writes a pair that decodes: the same one every time, also when interrupted."""

import random
import re
import shutil
import sys

import pytest
import torch
from kit import assert_same_tokens, checked_generate
from safetensors.torch import load_file
from typer.testing import CliRunner

from specdec_tutorial import autoregressive_generate, load_pair
from specdec_tutorial.training import data, optimize
from specdec_tutorial.training.__main__ import app

STEPS, DRAFTER_STEPS, BATCH, CONTEXT = 6, 4, 32, 64
OPTIONS = {
    "steps": STEPS, "drafter-steps": DRAFTER_STEPS, "batch": BATCH, "context": CONTEXT, "layers": 2, "width": 64,
    "drafter-width": 64, "vocab-size": 300, "own-texts": 64, "seed": 3, "name": "tiny", "weight": "animals=2",
}  # fmt: skip
WORDS = [
    "the",
    "a",
    "dog",
    "cat",
    "Tom",
    "Anna",
    "ran",
    "saw",
    "red",
    "little",
    "ball",
    "tree",
    "and",
    "was",
    "sad",
    ".",
]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Two files of nonsense, with an attribution that has to come along."""
    folder, rng = tmp_path_factory.mktemp("texts"), random.Random(0)
    for name in ("animals", "children"):
        documents = [" ".join(rng.choices(WORDS, k=60)) for _ in range(150)]
        (folder / f"{name}.txt").write_text("\n<|endoftext|>\n".join(documents), "utf-8")
    (folder / "animals_attribution.tsv").write_text("by somebody\n", "utf-8")
    return folder


def train(texts, out, *flags):
    options = [part for key, value in OPTIONS.items() for part in (f"--{key}", str(value))]
    return CliRunner().invoke(app, [str(texts), "--out", str(out), "--no-compile", *options, *flags])


@pytest.fixture(scope="module")
def trained(texts, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    result = train(texts, out)
    assert result.exit_code == 0, result.output
    return out


def assert_same_weights(ours, theirs):
    for role in ("target", "drafter"):
        a, b = (load_file(folder / role / "model.safetensors") for folder in (ours, theirs))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a), role
        assert (ours / role / "tokenizer.json").read_bytes() == (theirs / role / "tokenizer.json").read_bytes()


def test_the_pair_loads_and_decodes_losslessly(trained):
    pair = load_pair(trained)
    assert pair.drafter.config.num_hidden_layers == 1
    assert len(pair.tokenizer) == pair.target.config.vocab_size == 300
    ids = pair.tokenizer("Tom saw the little dog")["input_ids"]
    assert pair.tokenizer.decode(ids) == "Tom saw the little dog"
    expected = autoregressive_generate(ids, pair.target, max_gen_len=20)
    ends = [pair.target.generation_config.eos_token_id]
    assert ends == [pair.tokenizer.eos_token_id]
    text, _ = checked_generate(ids, pair.drafter, pair.target, max_gen_len=20, ends=ends)
    assert_same_tokens(ids, text, expected.tokens, pair.target)


def test_training_lowers_the_loss(trained):
    progress = torch.load(trained / "target.checkpoint", weights_only=True)["progress"]
    assert progress["step"] == STEPS
    card = (trained / "README.md").read_text("utf-8")
    held_out = [float(x) for x in re.findall(r"(?:animals|children) (\d+\.\d+)", card)]
    assert held_out and all(loss < 5.7 for loss in held_out)  # ln 300 = 5.70 is guessing


def test_the_card_tells_what_the_run_did(trained):
    card = (trained / "README.md").read_text("utf-8")
    assert "# The pair `tiny`" in card
    for role, steps in (("target", STEPS), ("drafter", DRAFTER_STEPS)):
        row = next(line for line in card.splitlines() if line.startswith(f"| {role} |"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        model = getattr(load_pair(trained), role)
        assert cells[2] == f"{model.num_parameters() / 1e6:.2f} M"
        assert cells[3:5] == [str(steps), f"{steps * BATCH * CONTEXT / 1e6:.2f} M"]
    for key in ("steps", "batch", "context", "seed", "vocab-size"):
        assert f"| {key.replace('-', ' ')} | {OPTIONS[key]} |" in card
    assert "- `animals`: text supplied by the user;" in card and "weight 2" in card
    assert (trained / "animals_attribution.tsv").read_text("utf-8") == "by somebody\n"


def test_the_same_seed_gives_the_same_weights(trained, texts, tmp_path):
    torch.rand(3)  # what happened before does not matter
    assert train(texts, tmp_path).exit_code == 0
    assert_same_weights(trained, tmp_path)


@pytest.mark.parametrize(("phase", "at"), [("target", 3), ("drafter", 3)])
def test_resuming_after_an_interruption_gives_the_same_weights(trained, texts, tmp_path, monkeypatch, phase, at):
    monkeypatch.setitem(optimize.train.__kwdefaults__, "save_every", 2)
    seed = OPTIONS["seed"] + {"target": 0, "drafter": 2}[phase]  # the batches of the two phases have seeds of their own
    with monkeypatch.context() as patched:
        honest = data.Batches.__call__

        def interrupted(self, step):
            if (self.seed, step, self.batch) == (seed, at, BATCH) and len(self.streams) == 2:
                raise KeyboardInterrupt
            return honest(self, step)

        patched.setattr(data.Batches, "__call__", interrupted)
        assert train(texts, tmp_path).exit_code != 0
    assert torch.load(tmp_path / f"{phase}.checkpoint", weights_only=True)["progress"]["step"] == 2
    assert not (tmp_path / "README.md").exists()
    assert train(texts, tmp_path, "--resume").exit_code == 0
    assert_same_weights(trained, tmp_path)


def test_resuming_a_finished_run_changes_nothing(trained, texts, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    assert train(texts, copy, "--resume").exit_code == 0
    assert_same_weights(trained, copy)


def test_help_is_for_newcomers():
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == 0
    plain = " ".join(result.output.split())
    for hint in ("Folder of .txt files", "data set id of the Hugging Face Hub", "--resume", "--out", "Example:"):
        assert hint in plain


def test_unusable_texts_are_refused(texts, tmp_path):
    result = train(tmp_path, tmp_path / "out")
    assert isinstance(result.exception, FileNotFoundError) and "no .txt file with text" in str(result.exception)
    result = train(texts, tmp_path / "out", "--weight", "plants=2")
    assert result.exit_code == 2 and "no source 'plants'; the sources are animals, children" in " ".join(
        result.output.replace("│", " ").split()
    )


def test_a_batch_is_a_function_of_seed_and_step(texts):
    sources = data.read_sources(str(texts))
    tokenizer = data.train_tokenizer(sources, 300)
    streams = [data.TokenStream.encode(d.train, tokenizer) for d in sources.values()]
    batches, again, other = (data.Batches(streams, [2.0, 1.0], 4, 16, seed) for seed in (0, 0, 1))
    assert batches(7).shape == (4, 16)
    again(3)
    assert torch.equal(batches(7), again(7))
    assert not torch.equal(batches(7), batches(8)) and not torch.equal(batches(7), other(7))
    with pytest.raises(ValueError, match="less than one window of 1000000"):
        data.Batches(streams, [1.0, 1.0], 4, 10**6, 0)


def test_held_out_text_is_never_trained_on(texts):
    for documents in data.read_sources(str(texts)).values():
        assert documents.held_out and not set(documents.train) & set(documents.held_out)
        assert len(documents.train) + len(documents.held_out) == 150


def test_a_mistyped_folder_is_not_taken_for_a_hub_id():
    with pytest.raises(FileNotFoundError, match="there is no folder 'my_texts'"):
        data.read_sources("my_texts")


def test_a_hub_id_without_datasets_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"specdec-tutorial\[train\]"):
        data.read_sources("somebody/texts")
