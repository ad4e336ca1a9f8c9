"""Importing the package is light: torch and transformers, no network, hardly any time of its own."""

import json
import subprocess
import sys
from pathlib import Path

# Runs in a fresh interpreter. What is installed around torch and transformers stands in for a machine without it.
PROBE = """
import json, socket, sys, time

FORBIDDEN = {"matplotlib", "typer", "rich", "ipywidgets", "IPython", "datasets", "tqdm", "pandas", "scipy", "pytest"}

def connect(*args, **kwargs):
    raise AssertionError("the import touched the network")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = connect

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
import transformers.cache_utils

class Gate:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise ModuleNotFoundError(f"{name} is not part of the core", name=name)

before = set(sys.modules)
sys.meta_path.insert(0, Gate())
began = time.perf_counter()
import specdec_tutorial
seconds = time.perf_counter() - began
new = sorted({m.partition(".")[0] for m in set(sys.modules) - before})
missing = [n for n in specdec_tutorial.__all__ if not hasattr(specdec_tutorial, n)]
print(json.dumps({"seconds": seconds, "new": new, "missing": missing}))
"""


def probe(tmp_path: Path) -> dict:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_import_needs_only_torch_and_transformers_and_no_time(tmp_path):
    result = probe(tmp_path)
    assert result["missing"] == []
    foreign = set(result["new"]) - set(sys.stdlib_module_names) - {"specdec_tutorial"}
    assert foreign <= {"torch", "transformers"}
    if result["seconds"] > 0.25:  # a busy machine gets a second chance
        result = probe(tmp_path)
    assert result["seconds"] <= 0.25
