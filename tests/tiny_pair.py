"""A pair of tiny random models with the embedded pair's tokenizer: decodes in no time and in no language."""

from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from specdec_tutorial.models import PRETRAINED


def save_tiny_pair(folder: Path) -> Path:
    """Write ``target/`` and ``drafter/``, a noisy copy of the target, so that some of its guesses are right."""
    tokenizer = AutoTokenizer.from_pretrained(PRETRAINED / "stories" / "target", local_files_only=True)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes, **special))
    for role, change in (("target", 4.0), ("drafter", 0.5)):  # large weights give clear preferences
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim == 2:
                    noise = torch.randn_like(weight) * weight.std()
                    weight.copy_(weight * change if role == "target" else weight + change * noise)
        model.save_pretrained(folder / role)
        tokenizer.save_pretrained(folder / role)
    return folder
