"""The console: what it shows, what it admits, and how it says no."""

import dataclasses
import json
import os
import pty
import subprocess
import sys

import pytest
from rich.console import Console
from tiny_pair import save_tiny_pair
from typer.testing import CliRunner

from specdec_tutorial import Generation, Round, Trace, benchmark, cli
from specdec_tutorial.contenders import decoders
from specdec_tutorial.race import STYLES, added_text, frame, heading, lane, legend, print_result, slowdown, written

RUN = [sys.executable, "-c", "from specdec_tutorial.cli import app; app()"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save_tiny_pair(tmp_path_factory.mktemp("pair")))


def specdec(*args, stdin=None):
    return CliRunner().invoke(cli.app, list(args), input=stdin)


class Letters:
    """A tokenizer of one letter a token; 200 and 201 are the halves of é."""

    def decode(self, ids):
        text = "".join(
            "\xe9" if pair == (200, 201) else chr(pair[1])
            for pair in zip([0, *ids], ids, strict=False)
            if pair[1] != 200
        )
        return text + ("\N{REPLACEMENT CHARACTER}" if ids and ids[-1] == 200 else "")


def codes(text):
    return [ord(letter) for letter in text]


@pytest.fixture
def lanes():
    """Both write "abcdef" behind ">": one a second each; and, in rounds, with x guessed for d."""
    plain = [Round(codes(letter), verify_seconds=1.0) for letter in "abcdef"]
    guessed = [
        Round(codes("a"), verify_seconds=1.0),
        Round(codes("bcd"), codes("bcxy"), 2, [1] * 4, [1] * 4, draft_seconds=0.4, verify_seconds=1.0),
        Round(codes("ef"), codes("e"), 1, [1], [1], draft_seconds=0.1, verify_seconds=1.0),
    ]

    def make(name, rounds):
        tokens = [token for r in rounds for token in r.emitted]
        trace = Trace(1, rounds, seconds=sum(r.draft_seconds + r.verify_seconds for r in rounds))
        return lane(name, "blue", codes(">"), Generation(tokens, "max_gen_len", trace), Letters())

    return [make("autoregressive", plain), make("speculative", guessed)]


def test_the_replay_follows_the_clock_of_the_trace(lanes):
    plain, guessed = lanes
    assert [written(plain, at).plain for at in (0.0, 0.9, 1.0, 3.5, 6.0)] == [">", ">", ">a", ">abc", ">abcdef"]
    assert written(guessed, 1.0).plain == ">a"
    assert written(guessed, 1.25).plain == ">abc"  # two of four guesses made
    assert written(guessed, 2.0).plain == ">abcxy"  # all made, none judged
    assert written(guessed, 2.4).plain == ">abcxd"  # c accepted, x rejected for d, y never tested
    assert written(guessed, 3.5).plain == ">abcxdef"
    assert guessed.caption(2.4) == "4 tokens · 2 passes · 2.40 s"
    assert guessed.caption(99) == "✓ 6 tokens · 3 passes · 3.50 s"
    assert slowdown(lanes) == 1


def test_every_fate_has_its_style(lanes):
    text = written(lanes[1], 99)
    styles = {text.plain[span.start : span.end]: span.style for span in text.spans}
    assert styles["x"] == STYLES["rejected"] and styles["x"].strike
    assert styles["d"] == STYLES["correction"]
    assert styles["b"] == styles["c"] == styles["e"] == STYLES["accepted"]
    assert styles["f"] == STYLES["bonus"]


def test_without_colors_marks_take_their_place(lanes):
    assert written(lanes[1], 99, marks=True).plain == ">abc[-x-]{+d+}ef"
    colored = Console(force_terminal=True, color_system="truecolor", no_color=False, width=80)
    plain = Console(color_system=None, width=80)
    assert "[-" in legend(plain).plain and "[-" not in legend(colored).plain


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_frame_fits_and_shows_the_end_of_a_long_text(lanes, width, capsys):
    console = Console(width=width, height=24, color_system=None)
    console.print(frame(lanes, 99, console))
    rows = capsys.readouterr().out.splitlines()
    assert all(len(row) <= width for row in rows)
    long = dataclasses.replace(lanes[1], prompt="word " * 200)
    console.print(frame([lanes[0], long], 99, console, most=5))
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 7
    assert "{+d+}ef" in rows[-2] or "{+d+}ef" in rows[-3] + rows[-2]


def test_characters_of_several_tokens_appear_when_complete():
    assert added_text(Letters(), codes("a"), [200, 201, 98]) == ["", "é", "b"]
    assert added_text(Letters(), codes("a"), [200]) == [""]


def test_result_admits_a_difference(lanes, capsys):
    console = Console(width=80, color_system=None)
    assert print_result(console, lanes, greedy=True)
    assert "identical tokens" in capsys.readouterr().out
    wrong = dataclasses.replace(lanes[1].generation, tokens=[1])
    assert not print_result(console, [lanes[0], dataclasses.replace(lanes[1], generation=wrong)], greedy=True)
    assert "different tokens" in capsys.readouterr().out
    assert "replayed" not in heading("x", "greedy", animated=False, slow=2).plain


def test_race_in_a_pipe(folder):
    result = specdec("race", "Once upon a time", "--pair", folder, "--max-gen-len", "12")
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.stdout
    for expected in ("measured one after the other", "autoregressive", "γ = 4", "tokens/s", "acceptance", "identical"):
        assert expected in result.stdout
    assert "Loading weights" not in result.stderr


def test_race_reads_standard_input(folder):
    result = specdec("race", "-", "--pair", folder, "--max-gen-len", "2", stdin="The little dog\n")
    assert result.exit_code == 0 and "The little dog" in result.stdout


@pytest.mark.parametrize("name", ["multinomial", "top-k", "nucleus", "top-k-nucleus"])
def test_race_of_samplers_promises_the_same_law_only(folder, name):
    result = specdec(
        "race", "Tom had", "--pair", folder, "--max-gen-len", "6", "--processor", name, "--temperature", "0.8"
    )
    assert result.exit_code == 0, result.output
    assert "same law" in result.stdout and "identical" not in result.stdout


def test_race_with_a_wrong_decoder_says_so(folder, monkeypatch):
    right = cli.speculative_generate

    def wrong(*args, **options):
        out = right(*args, **options)
        return dataclasses.replace(out, tokens=[*out.tokens[:-1], out.tokens[-1] + 1])

    monkeypatch.setattr(cli, "speculative_generate", wrong)
    result = specdec("race", "Tom had", "--pair", folder, "--max-gen-len", "6")
    assert result.exit_code == 1 and "different tokens" in result.stdout


def test_race_in_a_terminal(folder):
    outer, inner = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    environment.pop("NO_COLOR", None)
    command = [*RUN, "race", "Once upon a time", "--pair", folder, "--max-gen-len", "16", "--slow", "1"]
    process = subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner, env=environment)
    os.close(inner)
    seen = b""
    try:
        while chunk := os.read(outer, 65536):
            seen += chunk
    except OSError:  # how Linux says that the other side has closed
        pass
    os.close(outer)
    assert process.wait(timeout=60) == 0, seen.decode()
    text = seen.decode()
    assert "replayed together at their speed" in text
    assert "\x1b[?25l" in text and "\x1b[?25h" in text  # the cursor went and came back
    assert "\x1b[1;38;" in text  # colors
    assert "identical tokens" in text


def small_bench(folder, tmp_path, *more):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Once upon a time\n\nTom had a ball.\n", encoding="utf-8")
    options = ["--pair", folder, "--max-gen-len", "8", "--gamma", "2", "--repeats", "2", "--prompts", str(prompts)]
    return specdec("bench", *options, "--json", str(tmp_path / "out.json"), *more)


def test_bench_prints_ratios_and_writes_json(folder, tmp_path):
    result = small_bench(folder, tmp_path)
    assert result.exit_code == 0, result.output
    for expected in ("speed ratio", "generate, assisted", "acceptance", "v(3)", "overhead", "same", "loaded"):
        assert expected in result.stdout
    assert "All decoders wrote the same tokens." in result.stdout
    data = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert data["identical"] and data["load_seconds"] > 0
    assert data["settings"]["prompts"] == ["Once upon a time", "Tom had a ball."]


def test_bench_with_a_wrong_decoder_says_so(folder, tmp_path, monkeypatch):
    def sabotaged(pair, gamma, max_gen_len):
        found = decoders(pair, gamma, max_gen_len)
        right = found["speculative"]

        def wrong(ids):
            run = right(ids)
            return dataclasses.replace(run, tokens=[*run.tokens[:-1], (run.tokens[-1] + 1) % 4096])

        return found | {"speculative": wrong}

    monkeypatch.setattr(benchmark, "decoders", sabotaged)
    result = small_bench(folder, tmp_path)
    assert result.exit_code == 1
    assert "did not write the same tokens" in result.stdout
    assert "speculative, prompt 1, new token 8" in result.stdout and "not a tie" in result.stdout
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["identical"] is False


@pytest.mark.parametrize(
    "args, message",
    [
        (["race", ""], "the prompt is empty"),
        (["race", " \n"], "the prompt is empty"),
        (["race", "hi", "--pair", "nope"], "stories"),
        (["race", "hi", "--gamma", "0"], "gamma must be at least 1"),
        (["race", "hi", "--max-gen-len", "0"], "max_gen_len must be at least 1"),
        (["race", "hi", "--top-k", "3"], "--top-k has no effect"),
        (["race", "hi", "--processor", "nucleus", "--top-p", "2"], "top_p must be"),
        (["race", "hi", "--processor", "multinomial", "--temperature", "0"], "temperature must be positive"),
        (["race", "hi", "--threads", "0"], "threads must be at least 1"),
        (["race", "hi", "--slow", "0"], "slow must be positive"),
        (["race", "word " * 99], "the model reads at most 64"),
        (["bench", "--repeats", "0"], "repeats must be at least 1"),
        (["bench", "--gamma", "-1"], "gamma must be at least 1"),
        (["bench", "--prompts", "no/such/file"], "no/such/file"),
        (["bench", "--prompts", os.devnull], "there is no prompt in"),
        (["bench", "--json", "no/such/folder/out.json"], "no/such/folder"),
    ],
)
def test_bad_input_gets_one_line_and_code_2(folder, args, message):
    result = specdec(*args, *([] if "--pair" in args else ["--pair", folder]))
    assert result.exit_code == 2
    assert message in result.stderr and result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1 and "Traceback" not in result.output


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_the_script_names_it(missing):
    hide = f"import sys; sys.modules[{missing!r}] = None; "  # as if it were not installed
    done = subprocess.run([sys.executable, "-c", hide + RUN[-1], "race", "hi"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f'specdec needs {missing}: pip install "specdec-tutorial[cli]"\n'
