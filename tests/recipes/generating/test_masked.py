"""Gaps of a text that are filled in, through the recipe."""

import pytest
import torch

from vitrail import models
from vitrail.data.text.characters import learn
from vitrail.errors import SettingError
from vitrail.objectives.masked_token import MaskedToken
from vitrail.recipes.generating.generate import generate
from vitrail.recipes.generating.masked import shown
from vitrail.recipes.generating.settings import Generate
from vitrail.weights.save import save_description, save_weights


@pytest.fixture
def run(tmp_path):
    tokenizer = learn(["what is hidden here? [\n"], 40, MaskedToken.special)
    torch.manual_seed(0)
    model = models.create_text("bert-nano", vocabulary=len(tokenizer), width=16, depth=1, heads=2, mlp=16, context=24)
    learner = MaskedToken("bert-nano", model, tokenizer)
    save_description(learner, tmp_path)
    save_weights(learner.state_dict(), tmp_path)
    return tmp_path


def test_each_gap_has_its_guesses(run, capsys):
    (answer,) = generate(Generate(str(run), prompt="what [MASK]s hid[MASK]en", top_k=3))
    assert answer["prompt"] == "what [MASK]s hid[MASK]en"
    best = [gap[0]["token"] for gap in answer["gaps"]]
    assert answer["text"] == f"what {best[0]}s hid{best[1]}en"
    for gap in answer["gaps"]:
        shares = [guess["probability"] for guess in gap]
        assert len(shares) == 3
        assert shares == sorted(shares, reverse=True)
    printed = capsys.readouterr().out
    assert answer["text"] in printed
    assert "gap 2" in printed
    (again,) = generate(Generate(str(run), prompt="what [MASK]s hid[MASK]en", seed=5, json=True))
    assert again["text"] == answer["text"]
    assert len(again["gaps"][0]) == 5
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("what is", "nothing is hidden in 'what is'"),
        ("[MASK]" + 30 * "h", "33 tokens are more than"),
        (None, "--prompt"),
    ],
)
def test_prompts_that_cannot_be_filled(prompt, message, run):
    with pytest.raises(SettingError, match=message):
        generate(Generate(str(run), prompt=prompt))


@pytest.mark.parametrize(("token", "seen"), [("a", "a"), (" ", "␣"), ("\n", r"\n"), ("[", r"\["), (" the", " the")])
def test_what_one_sees_of_a_token(token, seen):
    assert shown(token) == seen
