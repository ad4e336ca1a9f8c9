"""Tiny models with random weights, one of each kind of memory: what is true of these is true of their big siblings."""

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3NextConfig,
)

VOCAB, LIMIT, WINDOW = 37, 64, 5
COMMON = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None, "tie_word_embeddings": False}
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": LIMIT,
    **COMMON,
}


def configuration(kind: str) -> PreTrainedConfig:
    if kind == "llama":  # every layer attends to everything
        return LlamaConfig(**SIZES)
    if kind == "mistral":  # every layer attends to a window
        return MistralConfig(**SIZES, sliding_window=WINDOW)
    if kind == "gemma":  # both kinds of layers in one model
        layers = ["sliding_attention", "full_attention"]
        return Gemma3TextConfig(**SIZES, sliding_window=WINDOW, layer_types=layers)
    if kind == "gpt2":  # learned positions
        return GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=LIMIT, **COMMON)
    if kind == "hybrid":  # a layer with a recurrent state under a layer with attention
        heads = {"linear_num_value_heads": 2, "linear_num_key_heads": 2}
        sizes = {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "num_experts": 0, "mlp_only_layers": [0, 1]}
        return Qwen3NextConfig(**SIZES, **heads, **sizes, layer_types=["linear_attention", "full_attention"])
    if kind == "mamba":  # recurrent through and through, without the arguments of a key-value cache
        return MambaConfig(vocab_size=VOCAB, hidden_size=32, state_size=4, num_hidden_layers=2, **COMMON)
    raise ValueError(kind)


def tiny(kind: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> PreTrainedModel:
    """The same weights for the same arguments, larger than usual so that predictions are not all alike."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(configuration(kind)).to(dtype).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim >= 2 and "conv" not in name:
                weight.mul_(4.0)
    return model


def tokens(n: int, seed: int = 0) -> list[int]:
    return torch.randint(VOCAB, (n,), generator=torch.Generator().manual_seed(seed)).tolist()
