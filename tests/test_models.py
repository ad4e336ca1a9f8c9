"""Pairs of models: the embedded one, folders of one's own, and what is refused."""

import json
import socket

import pytest
import torch
from tiny_pair import save_tiny_pair
from transformers import AutoTokenizer

from specdec_tutorial import check_same_tokenizer, load_pair, speculative_generate
from specdec_tutorial.models import PRETRAINED, embedded_pairs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_pair(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def connect(*args, **kwargs):
        raise AssertionError("loading a pair touched the network")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)


def with_other_tokenizer(folder, tmp_path, change):
    """A copy of the pair whose drafter has a changed tokenizer."""
    other = tmp_path / "other"
    for role in ("target", "drafter"):
        (other / role).mkdir(parents=True)
        for file in (folder / role).iterdir():
            (other / role / file.name).write_bytes(file.read_bytes())
    file = other / "drafter" / "tokenizer.json"
    content = json.loads(file.read_text("utf-8"))
    change(content)
    file.write_text(json.dumps(content), "utf-8")
    return other


def test_the_embedded_pair(pair):
    assert embedded_pairs() == ["stories"]
    assert pair.name == "stories"
    for model in (pair.target, pair.drafter):
        assert model.dtype == torch.float32 and model.device.type == "cpu" and not model.training
        assert model.config.vocab_size == len(pair.tokenizer)
    assert pair.drafter.num_parameters() < pair.target.num_parameters() / 8
    text = "Once upon a time, Tom said: “Ünïcode!”"
    assert pair.tokenizer.decode(pair.tokenizer(text)["input_ids"]) == text
    assert pair.target.generation_config.eos_token_id == pair.tokenizer.eos_token_id


def test_the_embedded_weights_are_safetensors_and_nothing_else():
    names = {file.name for file in (PRETRAINED / "stories").rglob("*") if file.is_file()}
    assert "model.safetensors" in names
    assert not {name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl", ".py"))}


def test_a_folder_of_ones_own(folder):
    for name in (folder, str(folder)):
        pair = load_pair(name)
        assert pair.name == str(folder)
        out = speculative_generate(pair.tokenizer("Hello")["input_ids"], pair.drafter, pair.target, max_gen_len=5)
        assert len(out.tokens) == 5


def test_dtype_and_device(folder):
    pair = load_pair(folder, dtype=torch.float64)
    assert pair.target.dtype == pair.drafter.dtype == torch.float64
    assert load_pair(folder, device="meta").target.device.type == "meta"


@pytest.mark.parametrize("name", ["storys", "no/such/folder", ""])
def test_an_unknown_name_lists_the_known_ones(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"no pair named '{name or '.*'}': the embedded pairs are stories; otherwise"):
        load_pair(name)


def test_an_embedded_name_wins_over_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stories").mkdir()
    assert load_pair("stories").target.num_parameters() > 0


@pytest.mark.parametrize("missing", ["target", "drafter"])
def test_half_a_pair_is_refused(folder, tmp_path, missing):
    for role in {"target", "drafter"} - {missing}:
        (tmp_path / role).symlink_to(folder / role)
    with pytest.raises(ValueError, match="give a folder that holds target/ and drafter/"):
        load_pair(tmp_path)


def swap_two_tokens(content):
    vocab = content["model"]["vocab"]
    first, second = list(vocab)[300:302]
    vocab[first], vocab[second] = vocab[second], vocab[first]


def drop_the_last_token(content):
    last = max(content["model"]["vocab"], key=content["model"]["vocab"].get)
    del content["model"]["vocab"][last]
    content["model"]["merges"] = [m for m in content["model"]["merges"] if "".join(m) != last]


@pytest.mark.parametrize(("change", "differing"), [(swap_two_tokens, 2), (drop_the_last_token, 1)])
def test_two_tokenizers_are_refused(folder, tmp_path, change, differing):
    other = with_other_tokenizer(folder, tmp_path, change)
    with pytest.raises(ValueError, match=f"different tokenizers .*{differing} of the target's have another id or none"):
        load_pair(other)
    ours, theirs = (AutoTokenizer.from_pretrained(other / role) for role in ("target", "drafter"))
    check_same_tokenizer(ours, ours)
    with pytest.raises(ValueError, match="choose models of one family"):
        check_same_tokenizer(ours, theirs)
