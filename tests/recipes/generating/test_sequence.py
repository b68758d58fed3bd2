"""A model that fills gaps, from the text it learns from to its answers on the command line."""

import io
import json

import pytest
import torch

from vitrail import models
from vitrail.cli.main import main
from vitrail.data.text.characters import learn
from vitrail.objectives.span import Span
from vitrail.recipes.generating.sequence import filled, fillings
from vitrail.weights.save import save_description, save_weights

LETTERS = "abcdefgh"
TINY = ["width=32", "depth=1", "decoder_depth=1", "heads=2", "mlp=48"]


def run(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words)])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


@pytest.fixture
def folder(tmp_path):
    """A run with random weights."""
    tokenizer = learn([LETTERS + " ."], 200, Span.special)
    torch.manual_seed(0)
    shape = {"width": 32, "depth": 1, "decoder_depth": 1, "heads": 2, "mlp": 48, "context": 24}
    learner = Span("t5-nano", models.create_text("t5-nano", vocabulary=len(tokenizer) + 9, **shape), tokenizer)
    save_description(learner, tmp_path)
    save_weights(learner.state_dict(), tmp_path)
    return tmp_path


def test_from_text_to_answers(tmp_path, capsys):
    """The alphabet again and again: what is missing is known."""
    (tmp_path / "text.txt").write_text("abcdefgh. " * 400)
    words = ["--config", *TINY, "--context", 24, "--steps", 400, "--batch-size", 16, "--learning-rate", 5e-3]
    words += ["--model", "transformer-nano"]
    run_folder = tmp_path / "run"
    options = ["--options", "mask_ratio=0.2", "span=2"]
    status, out, err = run(
        capsys,
        "pretrain",
        tmp_path / "text.txt",
        "--objective",
        "span",
        "--out",
        run_folder,
        *words,
        *options,
        "--json",
    )
    assert status == 0, err
    assert json.loads(out)["text"] < 1.0  # a uniform guess among the letters has 2.2
    prompt = "abcd<extra_id_0>gh. abcdefgh"
    for flags in (["--beams", 1], ["--beams", 4], ["--temperature", 0.1]):
        status, out, err = run(capsys, "generate", run_folder, "--prompt", prompt, *flags)
        assert status == 0, err
        assert out.startswith("abcdef")
        assert out.endswith("gh. abcdefgh\n")
    status, out, _ = run(capsys, "generate", run_folder, "--prompt", prompt, "--beams", 3, "--count", 2, "--json")
    first, second = json.loads(out)
    assert (status, first["ended"]) == (0, True)
    assert first["text"].startswith("<extra_id_0>ef")
    assert first["filled"].startswith("abcdef")
    assert second["score"] < first["score"] < 0


def test_draws_depend_on_the_seed_alone(folder, capsys):
    words = ("generate", folder, "--prompt", "ab<extra_id_0>c", "--temperature", 1, "--count", 3, "--json", "--seed")
    first, again, other = (json.loads(run(capsys, *words, seed)[1]) for seed in (1, 1, 2))
    assert first == again != other
    assert len(first) == 3
    assert all(answer["score"] is None for answer in first)
    assert len({answer["text"] for answer in first}) == 3


def test_no_token_beyond_the_tokenizers_is_written(folder, capsys):
    """The model has nine more than the tokenizer."""
    _, out, _ = run(capsys, "generate", folder, "--prompt", "ab", "--temperature", 5, "--count", 50, "--json")
    answers = json.loads(out)
    assert not any("#" in answer["text"] for answer in answers)
    assert {answer["filled"] for answer in answers} == {None}
    assert max(answer["tokens"] for answer in answers) <= 24


def test_a_text_that_is_cut_says_so(folder, capsys):
    _, out, _ = run(capsys, "generate", folder, "--prompt", "ab", "--tokens", 1, "--json")
    (answer,) = json.loads(out)
    assert answer["tokens"] == 1
    assert not answer["ended"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prompt", ""], "the prompt is empty"),
        (["--prompt", "a" * 24], "the prompt has 25 tokens with its end, the model reads 24 at most; shorten it"),
        ([], "give one with --prompt"),
        (["--prompt", "ab", "--count", "2"], "1 beam has no 2 answers: give more --beams, or draw them"),
        (["--prompt", "ab", "--beams", "2", "--count", "3"], "2 beams have no 3 answers"),
        (["--prompt", "ab", "--beams", "2", "--temperature", "1"], "give one of them"),
    ],
)
def test_mistakes_are_named(folder, capsys, words, message):
    status, out, err = run(capsys, "generate", folder, *words)
    assert (status, out) == (2, "")
    assert message in err


def test_what_is_written_belongs_to_the_gap_before_it():
    tokenizer = learn([LETTERS], 200, Span.special)
    learner = Span("t5-nano", models.create_text("t5-nano", vocabulary=len(tokenizer), context=24), tokenizer)
    written = tokenizer.encode("h<extra_id_1>de<extra_id_0><extra_id_5>g<extra_id_1>f")
    assert fillings(written, learner) == {"": "h", "<extra_id_1>": "def", "<extra_id_0>": "", "<extra_id_5>": "g"}


def test_gaps_are_filled_by_their_names():
    answers = {"<extra_id_1>": "cat", "<extra_id_10>": " dog", "<extra_id_2>": ""}
    prompt = "The  Größe <extra_id_1>, a<extra_id_10> <extra_id_10>\n<extra_id_2>!<extra_id_3>."
    assert filled(prompt, answers) == "The  Größe cat, a dog dog\n!<extra_id_3>."


def test_what_the_tokenizer_does_not_know_is_said_and_kept(folder, capsys):
    status, out, err = run(capsys, "generate", folder, "--prompt", "ZZ<extra_id_0>b")
    assert status == 0
    assert "does not know 2 tokens of the prompt" in err
    assert out.startswith("ZZ")
    assert "does not know" not in run(capsys, "generate", folder, "--prompt", "ab")[2]


def test_the_line_end_of_standard_input_is_not_read(folder, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"ab<extra_id_0>\n")))
    (answer,) = json.loads(run(capsys, "generate", folder, "--prompt", "-", "--json")[1])
    assert answer["prompt"] == "ab<extra_id_0>"
