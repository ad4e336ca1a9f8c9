"""A session answers as if the model had read the whole text afresh, whatever was read and taken back before."""

import random

import pytest
import torch
from tiny_models import LIMIT, VOCAB, WINDOW, tiny, tokens
from transformers.cache_utils import DynamicSlidingWindowLayer

from specdec_tutorial import DecodingSession
from specdec_tutorial.session import position_limit

ATTENTION = ["llama", "mistral", "gemma", "gpt2"]
DTYPES = [torch.float32, torch.float64]
CLOSE = {torch.float32: {"rtol": 1e-4, "atol": 1e-4}, torch.float64: {"rtol": 1e-10, "atol": 1e-10}}
TEXT = tokens(18)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module", params=[(k, d) for k in ATTENTION for d in DTYPES], ids=str)
def model(request):
    return tiny(*request.param)


@pytest.fixture(scope="module")
def llama():
    return tiny("llama", torch.float64)


@pytest.fixture(scope="module")
def hybrid():
    return tiny("hybrid")  # its recurrence is computed in float32 in any case


def fresh(model, text):
    """Logits of a model that reads the text for the first time, without any cache: ``(1, n, vocab)``."""
    return model(torch.tensor([text]), use_cache=False).logits


def assert_close(ours, expected):
    torch.testing.assert_close(ours, expected, **CLOSE[expected.dtype])


def assert_holds(session, text):
    """The session's keys and values are those of a fresh session that read the text at once."""
    assert session.tokens.tolist() == [text]
    assert session.length == len(text)
    if not text:
        assert session._cache.get_seq_length() == 0
        return
    other = DecodingSession(session.model)
    other.extend(text)
    assert session._cache.get_seq_length() == len(text)
    for ours, theirs in zip(session._cache.layers, other._cache.layers, strict=True):
        n = ours.keys.shape[2]
        needed = len(text)
        if isinstance(ours, DynamicSlidingWindowLayer):
            needed = min(needed, WINDOW - 1)  # what the next token looks at besides itself
        assert n >= needed
        assert_close(ours.keys, theirs.keys[:, :, -n:])
        assert_close(ours.values, theirs.values[:, :, -n:])


@pytest.mark.parametrize("chunks", [[18], [1] * 18, [3, 1, 5, 9], [17, 1], [6, 12]], ids=str)
def test_reading_in_pieces_equals_reading_at_once(model, chunks):
    session, pieces, unread = DecodingSession(model), [], TEXT
    for n in chunks:
        pieces.append(session.extend(unread[:n]))
        unread = unread[n:]
    assert_close(torch.cat(pieces, dim=1), fresh(model, TEXT))
    assert_holds(session, TEXT)
    assert session.positions_read == len(TEXT)


@pytest.mark.parametrize("length", [17, 14, WINDOW, WINDOW - 1, 2, 0])
def test_rollback_then_extend_equals_a_fresh_session(model, length):
    session = DecodingSession(model)
    session.extend(TEXT[:9])
    session.extend(TEXT[9:])
    session.rollback(length)
    assert_holds(session, TEXT[:length])
    other = tokens(4, seed=1)
    assert_close(session.extend(other), fresh(model, TEXT[:length] + other)[:, length:])
    assert_holds(session, TEXT[:length] + other)


@pytest.mark.parametrize("seed", range(4))
def test_any_sequence_of_reading_and_forgetting(model, seed):
    rng, session, text = random.Random(seed), DecodingSession(model), []
    for _ in range(24):
        if text and rng.random() < 0.5:
            length = rng.choice([len(text), len(text) - 1, rng.randint(0, len(text))])
            session.rollback(length)
            text = text[:length]
        else:
            new = [rng.randrange(VOCAB) for _ in range(rng.choice([1, 1, 2, 5, 9]))][: LIMIT - len(text)]
            if new:
                logits = session.extend(new)
                text = text + new
                assert_close(logits, fresh(model, text)[:, -len(new) :])
        assert_holds(session, text)


@pytest.mark.parametrize("kind", ["mistral", "gemma"])
def test_repeated_rollbacks_past_the_window(kind):
    """The trap: the first rollback drops what lies before the window, and the second one needs it."""
    model = tiny(kind, torch.float64)
    session = DecodingSession(model)
    session.extend(TEXT)
    for length in (15, 13, 12, 7, 3, 1):
        session.rollback(length)
        assert_holds(session, TEXT[:length])
        assert_close(session.extend(TEXT[length : length + 1]), fresh(model, TEXT[: length + 1])[:, -1:])
        session.rollback(length)


def test_rounds_of_speculation_never_read_a_token_twice():
    """Roll back a few, read a few: with a window, too, nothing is read again as long as the text grows."""
    session, length = DecodingSession(tiny("mistral")), 10
    session.extend(TEXT[:length])
    for accepted in (0, 3, 1, 2, 0, 3):
        session.extend(tokens(4, seed=accepted))
        length += 1 + accepted
        session.rollback(length)
    assert session.positions_read == 10 + 6 * 4


def test_forgetting_nothing_does_nothing(model):
    session = DecodingSession(model)
    session.rollback(0)
    session.extend(TEXT)
    session.rollback(len(TEXT))
    assert session.positions_read == len(TEXT)
    assert_holds(session, TEXT)


def test_rollback_reads_nothing_again_under_full_attention(llama):
    session = DecodingSession(llama)
    session.extend(TEXT)
    for length in (10, 4, 1, 0):
        session.rollback(length)
    assert session.positions_read == len(TEXT)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("length", [-1, 4, 100])
def test_rollback_to_nowhere(llama, use_cache, length):
    session = DecodingSession(llama, use_cache)
    session.extend(TEXT[:3])
    with pytest.raises(ValueError, match=f"cannot roll back to length {length}: 3 tokens were read"):
        session.rollback(length)
    assert session.length == 3


def test_without_cache_the_logits_are_the_same_and_the_prefix_is_read_every_time(model):
    cached, naive = DecodingSession(model), DecodingSession(model, use_cache=False)
    for n in (6, 1, 1, 3):
        new = TEXT[cached.length : cached.length + n]
        assert_close(naive.extend(new), cached.extend(new))
    assert (cached.positions_read, naive.positions_read) == (11, 6 + 7 + 8 + 11)
    cached.rollback(8)
    naive.rollback(8)
    assert_close(naive.extend(TEXT[:2]), cached.extend(TEXT[:2]))
    assert (cached.positions_read, naive.positions_read) == (13, 32 + 10)


@pytest.mark.parametrize("use_cache", [True, False])
def test_last_trims_the_logits(model, use_cache):
    expected = fresh(model, TEXT)
    for last in (1, 2, len(TEXT)):
        logits = DecodingSession(model, use_cache).extend(TEXT, last=last)
        assert_close(logits, expected[:, -last:])


def test_tokens_come_as_list_vector_or_row(llama):
    expected = fresh(llama, TEXT)
    for given in (TEXT, torch.tensor(TEXT), torch.tensor([TEXT])):
        assert_close(DecodingSession(llama).extend(given), expected)


@pytest.mark.parametrize("nothing", [[], torch.empty(1, 0, dtype=torch.long)], ids=["list", "tensor"])
def test_reading_nothing_is_an_error(llama, nothing):
    session = DecodingSession(llama)
    session.extend(TEXT)
    with pytest.raises(ValueError, match="nothing to read"):
        session.extend(nothing)
    assert_holds(session, TEXT)


def test_reset_forgets_everything_but_the_bill(model):
    session = DecodingSession(model)
    session.extend(TEXT)
    session.reset()
    assert_holds(session, [])
    assert_close(session.extend(TEXT[:7]), fresh(model, TEXT[:7]))
    assert session.positions_read == len(TEXT) + 7
    assert session.seconds > 0


@pytest.mark.parametrize("kind", [*ATTENTION, "hybrid"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_reorder_selects_rows(kind, use_cache):
    model = tiny(kind)
    rows = torch.tensor([tokens(8, seed) for seed in range(3)])
    chosen = torch.tensor([2, 0, 2, 1])  # one row twice: the batch grows
    session = DecodingSession(model, use_cache)
    session.extend(rows)
    session.reorder(chosen)
    new = torch.tensor([tokens(2, seed) for seed in range(4)])
    expected = model(torch.cat([rows[chosen], new], dim=1), use_cache=False).logits[:, -2:]
    assert_close(session.extend(new), expected)
    session.rollback(9)
    assert session.tokens.tolist() == [[*rows[i].tolist(), new[k, 0].item()] for k, i in enumerate(chosen.tolist())]


def test_recurrent_state_is_refused_where_tokens_must_be_taken_back(hybrid):
    session = DecodingSession(hybrid)
    assert not session.can_roll_back
    with pytest.raises(ValueError, match=r"recurrent state that cannot be rolled back.*use_cache=False"):
        session.require_rollback()
    naive = DecodingSession(hybrid, use_cache=False)
    assert naive.can_roll_back
    naive.require_rollback()


@pytest.mark.parametrize("use_cache", [True, False])
def test_recurrent_state_still_decodes_and_rolls_back_by_reading_again(hybrid, use_cache):
    session = DecodingSession(hybrid, use_cache)
    session.extend(TEXT[:9])
    assert_close(session.extend(TEXT[9:10]), fresh(hybrid, TEXT[:10])[:, -1:])
    for length in (6, 0):
        session.rollback(length)
        assert_close(session.extend(TEXT[length : length + 3]), fresh(hybrid, TEXT[: length + 3])[:, -3:])


def test_a_model_without_key_value_cache_is_refused_by_name():
    model = tiny("mamba")
    with pytest.raises(ValueError, match=r"MambaForCausalLM takes no key-value cache; pass use_cache=False"):
        DecodingSession(model)
    session = DecodingSession(model, use_cache=False)
    session.extend(TEXT[:5])
    assert_close(session.extend(TEXT[5:8]), fresh(model, TEXT[:8])[:, -3:])


def test_position_limit():
    assert [position_limit(tiny(kind)) for kind in ("llama", "gpt2")] == [LIMIT, LIMIT]
    assert position_limit(tiny("mamba")) > 10**9  # nothing in its configuration bounds it
