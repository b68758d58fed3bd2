"""Text that goes on: through the command line, and token by token against a plain loop."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from vitrail import models
from vitrail.data.text import bytepair, characters
from vitrail.nn.sampling import sample
from vitrail.objectives.next_token import NextToken
from vitrail.recipes.generating import text as generate_text
from vitrail.recipes.generating.generate import GENERATORS, generate
from vitrail.recipes.generating.settings import Generate
from vitrail.tasks import TASKS
from vitrail.weights.save import save_description, save_weights

CONTEXT = 16
SHAPE = {"width": 24, "depth": 2, "heads": 3, "mlp": 48, "context": CONTEXT}


def learner_of(tokenizer, vocabulary=None, **changes) -> NextToken:
    """Random weights, large enough for a next token to depend on all before it."""
    torch.manual_seed(0)
    model = models.create_text("gpt", **{**SHAPE, "vocabulary": vocabulary or len(tokenizer), **changes})
    learner = NextToken("gpt", model, tokenizer)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return learner.eval()


def saved(learner: NextToken, folder: Path) -> Path:
    save_description(learner, folder)
    save_weights(learner.state_dict(), folder)
    return folder


@pytest.fixture(scope="module")
def letters() -> NextToken:
    return learner_of(characters.learn(["abcdefghijklmnop \n"], 100, NextToken.special))


@pytest.fixture(scope="module")
def run(letters, tmp_path_factory) -> Path:
    return saved(letters, tmp_path_factory.mktemp("letters"))


def ask(run: Path, **settings):
    return generate(
        Generate(str(run), **{"prompt": "abc", "tokens": 8, "precision": "float32", "json": True, **settings})
    )


# ------------------------------------------------------------------------------------------------- from a command line


def test_a_pattern_that_was_learned_goes_on(vitrail, tmp_path):
    (tmp_path / "pattern.txt").write_text("the cat sat. " * 400)
    flags = (
        "--steps",
        80,
        "--batch-size",
        8,
        "--learning-rate",
        0.01,
        "--context",
        20,
        "--config",
        "width=32",
        "mlp=64",
        "depth=1",
    )
    said = vitrail("pretrain", tmp_path / "pattern.txt", "--objective", "next-token", "--out", tmp_path / "run", *flags)
    assert said.status == 0
    assert "perplexity" in said.err
    said = vitrail("generate", tmp_path / "run", "--prompt", "the ", "--temperature", 0, "--tokens", 35)
    assert (said.status, said.out) == (0, ("the cat sat. " * 3) + "\n")


def test_one_text_is_told_as_it_comes_and_a_program_gets_the_same(vitrail, run):
    said = vitrail("generate", run, "--prompt", "abc", "--tokens", 12, "--seed", 5)
    (answer,) = json.loads(vitrail("generate", run, "--prompt", "abc", "--tokens", 12, "--seed", 5, "--json").out)
    assert said.out == "abc" + answer["text"] + "\n"
    assert answer == {"prompt": "abc", "text": answer["text"], "tokens": 12, "ended": False}
    assert len(answer["text"]) == 12


def test_several_texts(vitrail, run):
    words = ("generate", run, "--prompt", "abc", "--tokens", 9, "--count", 3)
    answers = json.loads(vitrail(*words, "--json").out)
    assert len({answer["text"] for answer in answers}) == 3
    texts = vitrail(*words).out.split("\n" + 80 * "-" + "\n")
    assert [text.rstrip("\n") for text in texts] == [f"abc{answer['text']}".rstrip("\n") for answer in answers]


def test_a_prompt_on_standard_input(run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"abc")))
    assert ask(run, prompt="-") == ask(run)


def test_a_seed_is_a_text(run):
    assert ask(run, seed=1) == ask(run, seed=1)
    assert ask(run, seed=1) != ask(run, seed=2)
    assert ask(run, seed=1, temperature=0.0) == ask(run, seed=2, temperature=0.0) == ask(run, seed=3, top_k=1)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--prompt", ""], "the prompt is empty; give the model at least one character"),
        (["--prompt", "abc!"], "does not know the character '!'"),
        ([], 'needs a text to go on from: give one with --prompt "..."'),
        (["cat.png", "--prompt", "abc"], "reads text, not images"),
        (["--prompt", "abc", "--beams", 3], "--beams is for models with an encoder"),
        (["--prompt", "abc", "--tokens", 0], "--tokens must be at least 1"),
        (["--prompt", "abc", "--count", 0], "--count must be at least 1"),
        (["--prompt", "abc", "--temperature", -1], "--temperature must be a number from 0 upwards"),
        (["--prompt", "abc", "--top-k", 0], "--top-k must be at least 1"),
        (["--prompt", "abc", "--top-p", 1.5], "--top-p must be above 0 and at most 1"),
        (["--prompt", "abc", "--tokenizer", "x"], "has its own tokenizer; leave out --tokenizer"),
    ],
)
def test_what_makes_no_sense_is_said_in_a_sentence(flags, words, run, vitrail):
    said = vitrail("generate", run, *flags)
    assert said.status == 2
    assert words in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


def test_a_prompt_that_is_not_text(run, vitrail, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe")))
    said = vitrail("generate", run, "--prompt", "-")
    assert (said.status, said.out) == (2, "")
    assert "is not UTF-8 text; convert it first" in said.err


def test_what_generates_nothing_says_so(colours, vitrail):
    said = vitrail("generate", colours.folder, "--prompt", "abc")
    assert said.status == 2
    assert "was trained for classification and generates nothing" in said.err
    assert not set(GENERATORS) & set(TASKS)


# ----------------------------------------------------------------------------------------------------- token by token


@torch.no_grad()
def by_a_plain_loop(learner, ids, count, temperature, seed):
    """Without a cache: all that the model sees is computed for every token."""
    generator, seen, new = torch.Generator().manual_seed(seed), ids[-CONTEXT:], []
    for _ in range(count):
        scores = learner(torch.tensor([seen]))[0, -1]
        new.append(int(sample(scores, generator, temperature=temperature)))
        seen = [*seen, new[-1]]
        if len(seen) > CONTEXT:
            seen = seen[-(CONTEXT - CONTEXT // 8) :]
    return new


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("prompt", ["a", "abc", "abcdefghijklmnop", "abcdefghijklmnop abcd"])
def test_what_was_computed_is_kept_and_changes_nothing(prompt, temperature, run, letters):
    """Also past the context, where the oldest tokens are forgotten."""
    ids = letters.tokenizer.encode(prompt)
    (answer,) = ask(run, prompt=prompt, tokens=50, temperature=temperature, seed=3)
    expected = by_a_plain_loop(letters, ids, 50, temperature, seed=3)
    if letters.tokenizer.end in expected:
        expected = expected[: expected.index(letters.tokenizer.end) + 1]
    assert answer["text"] == letters.tokenizer.decode(expected)
    assert answer["tokens"] == len(expected)


def test_it_is_said_once_that_not_all_is_seen(run, vitrail):
    assert vitrail("generate", run, "--prompt", "abc", "--tokens", 13, "--json").err == ""
    said = vitrail("generate", run, "--prompt", "abc", "--tokens", 40)
    assert said.err == "The model sees 16 tokens at once: as the text grows longer it forgets the first ones.\n"
    said = vitrail("generate", run, "--prompt", "abc" * 6, "--tokens", 40)
    assert said.err == "The prompt has 18 tokens; the model sees the last 16 of them.\n"


def test_a_text_that_the_model_ends(letters, run, monkeypatch):
    """Rows end by themselves; what would follow the end is not told."""
    end, other = letters.tokenizer.end, letters.tokenizer.encode("p")[0]
    drawn = iter([[other, other], [end, other], [other, other], [other, end], [other, other]])
    monkeypatch.setattr(generate_text, "sample", lambda logits, **_: torch.tensor(next(drawn)))
    answers = ask(run, count=2, tokens=5)
    assert [(answer["text"], answer["tokens"], answer["ended"]) for answer in answers] == [
        ("p", 2, True),
        ("ppp", 4, True),
    ]


def test_a_character_of_several_bytes_is_told_when_it_is_whole():
    tokenizer = bytepair.learn(["abc"], 257, ["<|endoftext|>"])
    text = "a😀é\N{REPLACEMENT CHARACTER}b"
    ids = tokenizer.encode(text)
    assert len(ids) > len(text)
    growing = [ids[: n + 1] for n in range(len(ids))]
    told = list(generate_text.pieces(tokenizer, [], growing))
    assert "".join(told) == text
    assert [piece for piece in told if piece][:3] == ["a", "😀", "é"]


def test_bytes_that_never_become_a_character_are_told_at_the_end():
    tokenizer = bytepair.learn(["abc"], 257, ["<|endoftext|>"])
    ids = [*tokenizer.encode("a"), tokenizer.encode("😀")[0]]
    assert "".join(generate_text.pieces(tokenizer, [], [ids[:1], ids])) == "a\N{REPLACEMENT CHARACTER}"


def test_tokens_that_only_fill_the_vocabulary_up_are_never_drawn(tmp_path):
    tokenizer = characters.learn(["ab"], 100, NextToken.special)
    learner = learner_of(tokenizer, vocabulary=64)
    (answer,) = ask(saved(learner, tmp_path), prompt="a", tokens=40, temperature=5.0)
    assert len(answer["text"]) + answer["ended"] == answer["tokens"]


# -------------------------------------------------------------------------------------------------- published weights


def gpt2_of_transformers(folder: Path) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(n_embd=24, n_layer=2, n_head=3, vocab_size=40, n_positions=64, bos_token_id=0, eos_token_id=0)
    peer = GPT2LMHeadModel(config).eval()
    for parameter in peer.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.2)
    peer.save_pretrained(folder)
    return peer


def test_greedy_is_transformers_greedy(tmp_path):
    peer = gpt2_of_transformers(tmp_path)
    tokenizer = characters.learn(["abcdefghijklmnopqrstuvwxyz0123456789 .,"], 40, NextToken.special)
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json())
    (answer,) = ask(tmp_path, prompt="abc", tokens=50, temperature=0.0)
    given = torch.tensor([tokenizer.encode("abc")])
    expected = peer.generate(
        given, attention_mask=torch.ones_like(given), max_new_tokens=50, do_sample=False, pad_token_id=0
    )
    assert answer["text"] == tokenizer.decode(expected[0, 3:].tolist())
    assert answer["tokens"] == len(expected[0]) - 3


def test_a_tokenizer_elsewhere(tmp_path, vitrail):
    gpt2_of_transformers(tmp_path / "weights")
    said = vitrail("generate", tmp_path / "weights", "--prompt", "abc")
    assert said.status == 2
    assert "has no tokenizer beside its weights; name one with --tokenizer" in said.err
    (tmp_path / "tokenizer.json").write_text(characters.learn(["abcdef"], 40, NextToken.special).to_json())
    words = ("--prompt", "abc", "--tokenizer", tmp_path / "tokenizer.json", "--tokens", 5, "--json")
    assert json.loads(vitrail("generate", tmp_path / "weights", *words).out)[0]["tokens"] <= 5


def test_a_tokenizer_of_another_model(tmp_path, vitrail):
    gpt2_of_transformers(tmp_path / "weights")
    (tmp_path / "weights" / "tokenizer.json").write_text(bytepair.learn(["abc"], 300, []).to_json())
    said = vitrail("generate", tmp_path / "weights", "--prompt", "abc")
    assert said.status == 2
    assert "the tokenizer has 258 tokens and gpt a vocabulary of 40" in said.err
