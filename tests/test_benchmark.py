"""The benchmark tells the truth: about equality, about what it sets up, and in the JSON that it promises."""

import json
import math
from collections import Counter

import pytest
import torch
from tiny_pair import save_tiny_pair

from specdec_tutorial import Round, Trace, load_pair
from specdec_tutorial.benchmark import PROMPTS, Difference, Report, Spread, add_costs, logit_gap, measure, turns
from specdec_tutorial.contenders import Run, constant_gamma, decoders, forward_seconds

NAMES = ["autoregressive", "speculative", "generate", "generate, assisted"]
SMALL = {"gamma": 3, "max_gen_len": 12, "repeats": 2}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return load_pair(save_tiny_pair(tmp_path_factory.mktemp("pair")))


def test_four_decoders_are_measured_and_write_the_same_tokens(pair):
    calls = []
    report = measure(pair, PROMPTS[:3], **SMALL, progress=lambda: calls.append(1))
    assert report.identical and report.differences == []
    assert list(report.scores) == NAMES
    assert len(calls) == 4 * 3 * 2
    assert report.scores["autoregressive"].ratio.values == [1.0, 1.0]
    for score in report.scores.values():
        for spread in (score.ratio, score.tokens_per_second, score.overhead):
            assert len(spread.values) == 2
            assert spread.low <= spread.median <= spread.high
        assert all(0 < x < 1 for x in score.overhead.values)
    assert 0 <= report.acceptance_rate <= 1
    assert 1 <= report.tokens_per_round <= 4
    assert report.c > 0 and report.v > 0


def test_json_has_the_documented_keys_and_no_nan(pair):
    report = measure(pair, PROMPTS[:1], gamma=3, max_gen_len=1, repeats=1)  # too short for a single round
    data = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    documented = {"settings", "identical", "differences", "decoders", "acceptance_rate", "tokens_per_round", "c", "v"}
    assert set(data) == documented | {"expected_ratio", "load_seconds"}
    assert {"pair", "gamma", "max_gen_len", "repeats", "threads", "prompts", "torch"} <= set(data["settings"])
    assert list(data["decoders"]) == NAMES
    for score in data["decoders"].values():
        assert set(score) == {"ratio", "tokens_per_second", "overhead"}
        assert all(set(spread) == {"median", "low", "high", "values"} for spread in score.values())
    assert data["acceptance_rate"] is None and data["tokens_per_round"] is None and data["c"] is None


def test_a_wrong_decoder_is_found_and_placed(pair):
    right = decoders(pair, 3, 12)

    def wrong(ids):
        run = right["autoregressive"](ids)
        return Run([*run.tokens[:5], (run.tokens[5] + 1) % 4096, *run.tokens[6:]], run.seconds, run.model_seconds)

    def short(ids):
        run = right["autoregressive"](ids)
        return Run(run.tokens[:-2], run.seconds, run.model_seconds)

    contenders = {
        "autoregressive": right["autoregressive"],
        "wrong": wrong,
        "short": short,
        "generate": right["generate"],
    }
    report = measure(pair, PROMPTS[:2], **SMALL, contenders=contenders)
    assert not report.identical
    assert [(d.decoder, d.prompt, d.position) for d in report.differences] == [
        ("wrong", 0, 5),
        ("wrong", 1, 5),
        ("short", 0, 10),
        ("short", 1, 10),
    ]
    assert report.differences[0].gap > 0  # the target prefers its own token, in float64 too
    assert report.differences[2].token is None and math.isnan(report.differences[2].gap)
    assert not any(d.is_tie for d in report.differences)
    assert next(pair.target.parameters()).dtype == torch.float32  # the float64 model was a copy
    assert not json.loads(json.dumps(report.as_dict(), allow_nan=False))["identical"]


def test_a_decoder_that_errs_only_once_is_found(pair):
    right = decoders(pair, 3, 12)["autoregressive"]
    calls = iter(range(100))

    def moody(ids):
        run = right(ids)
        return run if next(calls) != 2 else Run(run.tokens[::-1], run.seconds, run.model_seconds)

    report = measure(pair, PROMPTS[:1], **SMALL, contenders={"autoregressive": right, "moody": moody})
    assert [d.decoder for d in report.differences] == ["moody"]


def test_a_tie_is_told_from_a_bug(pair):
    assert Difference("x", 0, 0, 1, 2, 1e-6).is_tie
    assert not Difference("x", 0, 0, 1, 2, 0.5).is_tie
    assert not Difference("x", 0, 0, None, 2, math.nan).is_tie
    assert logit_gap(Difference("x", 0, 0, 7, 7, math.nan), [1, 2], pair.target) == 0
    assert math.isnan(logit_gap(Difference("x", 0, 0, None, 7, math.nan), [1, 2], pair.target))


def test_assisted_generation_drafts_gamma_tokens_in_every_round(pair):
    widths = []
    hook = pair.target.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    ids = pair.tokenizer(PROMPTS[0])["input_ids"]
    run = decoders(pair, 3, 20)["generate, assisted"](ids)
    hook.remove()
    assert len(run.tokens) == 20
    assert widths[0] == len(ids) + 3
    assert max(widths[1:]) == 4 and Counter(widths[1:]).most_common(1)[0][0] == 4


def test_the_drafter_is_left_as_it_was(pair):
    before, settings = pair.drafter.generation_config, pair.drafter.generation_config.to_dict()
    with pytest.raises(RuntimeError), constant_gamma(pair.drafter, 7):
        assert pair.drafter.generation_config.num_assistant_tokens == 7
        raise RuntimeError
    decoders(pair, 3, 4)["generate, assisted"]([5, 6])
    assert pair.drafter.generation_config is before
    assert pair.drafter.generation_config.to_dict() == settings


def test_forward_seconds_sees_every_pass_and_leaves_no_hook(pair):
    ids = torch.tensor([[1, 2, 3]])
    with forward_seconds(pair.target, pair.drafter) as seconds:
        pair.target(ids), pair.drafter(ids), pair.target(ids)
    assert len(seconds) == 3 and min(seconds) > 0
    assert not pair.target._forward_hooks and not pair.target._forward_pre_hooks


def test_turns_are_fair():
    orders = [turns(NAMES, repeat, prompt) for repeat in range(4) for prompt in range(4)]
    assert all(sorted(order) == sorted(NAMES) for order in orders)
    for place in range(4):
        assert set(Counter(order[place] for order in orders).values()) == {4}
    before = {order[order.index("generate") - 1] for order in orders if order[0] != "generate"}
    assert len(before) == 2  # not always in the same footsteps


def test_costs_come_from_the_traces():
    plain = Trace(1, [Round([1], verify_seconds=9.0)] + [Round([1], verify_seconds=2.0)] * 3)
    full = Round([1, 2, 3], [1, 2], 2, draft_seconds=0.8, verify_seconds=3.0)
    last = Round([1], [5], 0, draft_seconds=5.0, verify_seconds=5.0)  # fewer than γ drafts: no part of c and v
    guessed = Trace(1, [Round([1], verify_seconds=9.0), full, full, last])
    report = Report({"gamma": 2})
    add_costs(report, {"autoregressive": [[Run([], 1, 1, plain)]], "speculative": [[Run([], 1, 1, guessed)]]})
    assert report.c == pytest.approx(0.2)
    assert report.v == pytest.approx(1.5)
    assert report.tokens_per_round == pytest.approx(7 / 3)
    assert report.acceptance_rate == pytest.approx(4 / 5)
    assert report.expected_ratio == pytest.approx((7 / 3) / (2 * 0.2 + 1.5))


def test_spread():
    assert Spread([3.0, 1.0, 2.0]).as_dict() == {"median": 2.0, "low": 1.0, "high": 3.0, "values": [3.0, 1.0, 2.0]}


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"repeats": 0}, "repeats must be at least 1"),
        ({"gamma": 0}, "gamma must be at least 1"),
        ({"max_gen_len": 0}, "max_gen_len must be at least 1"),
        ({"prompts": []}, "no prompt"),
        ({"prompts": ["a " * 99]}, "the model reads at most 64"),
    ],
)
def test_bad_settings(pair, bad, message):
    with pytest.raises(ValueError, match=message):
        measure(pair, **{"prompts": PROMPTS[:1], **SMALL, **bad})
