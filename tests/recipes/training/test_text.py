"""Runs on text: learning, resuming, starting from other runs, and what is refused in one sentence."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from vitrail.errors import Interrupted, RunError, SettingError
from vitrail.recipes.evaluating.evaluate import evaluate
from vitrail.recipes.evaluating.settings import Evaluate
from vitrail.recipes.predicting.predict import predict
from vitrail.recipes.predicting.settings import Predict
from vitrail.recipes.pretraining.pretrain import pretrain
from vitrail.recipes.pretraining.settings import Pretrain
from vitrail.recipes.training import choose_text
from vitrail.recipes.training import text as train_text
from vitrail.recipes.training.settings import Train
from vitrail.recipes.training.train import train
from vitrail.tasks import TEXT_TASKS
from vitrail.train.log import read_log
from vitrail.weights.published import Published
from vitrail.weights.saved import load, read_weights

TINY = ("width=16", "depth=1", "heads=2", "mlp=32")
CPU = torch.device("cpu")
FIXED: dict[str, Any] = {"device": "cpu", "precision": "float32"}
ADJECTIVES = ("slow", "old", "new", "fast", "red", "our")
MEANS, PLACES = ("trains", "ships", "planes", "buses", "bikes"), ("paris", "rome", "oslo")


EPOCHS = {"text-classification": 12, "text-pair": 20, "tagging": 4, "answer": 20}


class Learned(NamedTuple):
    folder: Path
    data: Path
    figures: dict[str, Any]


def rows_of(task: str) -> list[dict[str, Any]]:
    """90 examples that a model of nothing but words can learn."""
    rows: list[dict[str, Any]] = []
    for how, what, place in itertools.product(ADJECTIVES, MEANS, PLACES):
        if task == "text-classification":
            rows.append({"text": f"{how} {what} to {place}", "label": place})
        elif task == "text-pair":
            rows.append({"text1": f"to {place}", "text2": f"{how} {what}", "label": place})
        elif task == "tagging":
            rows.append({"tokens": [how, what, "to", place], "tags": ["O", "B-THING", "O", "B-CITY"]})
        else:
            stays = what == "bikes"
            context = f"{how} {what} stayed at home" if stays else f"{how} {what} went to {place} again"
            rows.append({"question": "where to", "context": context, "answer": "" if stays else place})
    return rows


def settings(task: str, data: object, out: Path | None, **others: Any) -> Train:
    usual: dict[str, Any] = {
        "weights": "none",
        "config": (*TINY, "context=32"),
        "epochs": 12,
        "batch_size": 8,
        "learning_rate": 0.02,
        "vocabulary": 200,
    }
    return Train(data=None if data is None else str(data), task=task, out=out, **FIXED, **usual | others)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Learned]:
    """The run of a task, trained when it is first asked for."""
    folder, runs = tmp_path_factory.mktemp("runs"), {}

    def get(task: str) -> Learned:
        if task not in runs:
            data = folder / f"{task}.jsonl"
            data.write_text("\n".join(map(json.dumps, rows_of(task))))
            runs[task] = Learned(folder / task, data, train(settings(task, data, folder / task, epochs=EPOCHS[task])))
        return runs[task]

    return get


@pytest.mark.parametrize("task", TEXT_TASKS)
def test_every_task_is_learned_measured_and_kept(learned, task: str) -> None:
    of = learned(task)
    assert of.figures[next(iter(TEXT_TASKS[task].main))] >= 0.75
    assert of.figures["split"] == "test"
    assert json.loads((of.folder / "evaluation.json").read_text())["texts"] == of.figures["texts"]
    written = {path.relative_to(of.folder).as_posix() for path in of.folder.rglob("*") if path.is_file()}
    needed = {"run.json", "model.json", "model.safetensors", "tokenizer.json", "metrics.jsonl", "last/state.pt"}
    assert needed | {"plots/curves.png"} <= written
    assert ("plots/per_class.png" in written) == (task != "answer")
    assert load(of.folder).name == task
    assert sum(record["kind"] == "validation" for record in read_log(of.folder / "metrics.jsonl")) == EPOCHS[task]


@pytest.mark.parametrize("task", TEXT_TASKS)
def test_evaluate_finds_what_training_found(learned, task: str) -> None:
    of = learned(task)
    again = evaluate(Evaluate(str(of.folder), out=of.folder / "again", json=True, **FIXED))
    same = {key: value for key, value in of.figures.items() if key not in ("run", "seconds")}
    for key, value in same.items():
        assert again[key] == (pytest.approx(value, rel=1e-4, abs=1e-6) if isinstance(value, float) else value), key
    assert again["texts_per_second"] > 0
    everything = evaluate(Evaluate(str(of.folder), str(of.data), json=True, **FIXED))
    assert (everything["texts"], everything["split"]) == (90, "all")


def test_what_a_run_says_of_texts(learned, vitrail, tmp_path: Path, monkeypatch) -> None:
    of = learned("text-classification")
    said = vitrail("predict", of.folder, "new trains to rome", "--device", "cpu")
    assert said.status == 0
    assert said.out.startswith("new trains to rome: rome ")
    (tmp_path / "texts.txt").write_text("old trains to paris\n\nnew ships to oslo\n")
    (tmp_path / "texts.csv").write_text("sentence,x\nold ships to rome,1\n")
    words = (str(tmp_path / "texts.txt"), str(tmp_path / "texts.csv"), "fast ships to oslo")
    answers = predict(Predict(str(of.folder), words, json=True, top=2, **FIXED))
    assert [answer["predictions"][0]["label"] for answer in answers] == ["paris", "oslo", "rome", "oslo"]
    assert {len(answer["predictions"]) for answer in answers} == {2}
    assert {answer["error"] for answer in answers} == {None}


def test_what_runs_say_of_pairs_words_and_questions(learned, vitrail) -> None:
    said = vitrail("predict", learned("text-pair").folder, "to rome ||| old trains", "--device", "cpu")
    assert said.out.startswith("to rome ||| old trains: rome ")
    said = vitrail("predict", learned("tagging").folder, "old ships to rome", "--device", "cpu")
    assert said.out == "old [ships THING] to [rome CITY]\n"
    question = "where to ||| new ships went to oslo again"
    said = vitrail("predict", learned("answer").folder, question, "--device", "cpu")
    assert said.out.startswith("where to: oslo (")
    said = vitrail("predict", learned("answer").folder, "where to", "--device", "cpu")
    assert said.status == 2
    assert "answer needs 'question ||| context', not 'where to'" in said.err


def test_predict_reads_what_a_task_is_trained_on(learned, vitrail, tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("old O\nships O\nto O\nrome O\n\nnew O\n")
    said = vitrail("predict", learned("tagging").folder, tmp_path / "a.conll", "--device", "cpu")
    assert said.out.splitlines()[0] == "old [ships THING] to [rome CITY]"
    assert len(said.out.splitlines()) == 2
    said = vitrail("predict", learned("answer").folder, learned("answer").data, "--device", "cpu", "--json")
    assert len(json.loads(said.out)) == 90
    (tmp_path / "a.csv").write_text("context,question\nnew ships went to oslo again,where to\n")
    said = vitrail("predict", learned("answer").folder, tmp_path / "a.csv", "--device", "cpu")
    assert said.out.startswith("where to: oslo (")


def test_bad_input_for_predict(learned, vitrail, tmp_path: Path) -> None:
    of = learned("text-classification").folder
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    for word, message in (
        ("missing.txt", "there is no file missing.txt"),
        (tmp_path / "empty.txt", "there is no text"),
        (tmp_path / "other.csv", "--text-column"),
        ("  ", "needs 'text'"),
    ):
        said = vitrail("predict", of, word, "--device", "cpu")
        assert (said.status, message in said.err) == (2, True), said.err
        assert "Traceback" not in said.err


@pytest.mark.parametrize("task", ["text-classification", "tagging"])
def test_killed_and_resumed_it_ends_as_if_nothing_had_been(learned, task: str, tmp_path: Path, monkeypatch) -> None:
    data, options = learned(task).data, {"epochs": 3, "ema": 0.9, "save_seconds": 0.0, "config": (*TINY, "dropout=0.1")}
    train(settings(task, data, tmp_path / "whole", **options))

    def killed(batches, start, stop, workers):
        for number in range(start, stop):
            if number == 8:
                raise KeyboardInterrupt
            yield batches[number]

    with monkeypatch.context() as patch:
        patch.setattr(train_text, "load_batches", killed)
        with pytest.raises(KeyboardInterrupt):
            train(settings(task, data, tmp_path / "killed", **options))
    train(Train(resume=tmp_path / "killed"))
    for file in ("metrics.jsonl", "model.safetensors", "evaluation.json", "tokenizer.json"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_who_stops_it_is_told_how_to_go_on(learned, tmp_path: Path, monkeypatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise Interrupted("stopped after step 3 of 9; all is saved.", 2)

    monkeypatch.setattr(train_text, "fit", stop)
    with pytest.raises(Interrupted, match=f"Go on with: vitrail train --resume {tmp_path / 'run'}"):
        train(settings("tagging", learned("tagging").data, tmp_path / "run"))


def test_a_run_that_never_saved_begins_again_with_the_same_weights(learned, tmp_path: Path) -> None:
    of = learned("text-classification")
    options = {"weights": str(of.folder), "config": (), "epochs": 1}
    whole = train(settings("text-classification", of.data, tmp_path / "run", **options))
    shutil.rmtree(tmp_path / "run" / "last")
    assert train(Train(resume=tmp_path / "run", json=True))["nll"] == whole["nll"]


def test_other_data_are_not_gone_on_with(learned, tmp_path: Path) -> None:
    of = learned("text-classification")
    data = tmp_path / "data.jsonl"
    shutil.copy(of.data, data)
    train(settings("text-classification", data, tmp_path / "run", epochs=1))
    data.write_text(data.read_text().replace("new ships", "odd ships"))
    with pytest.raises(RunError, match="no longer those that"):
        train(Train(resume=tmp_path / "run"))
    with pytest.raises(RunError, match="no longer what"):
        evaluate(Evaluate(str(tmp_path / "run"), **FIXED))


@pytest.mark.parametrize("model", ["bert-nano", "roberta-base", "gpt-nano"])
@pytest.mark.parametrize("task", TEXT_TASKS)
def test_every_parameter_that_is_trained_is_used(learned, task: str, model: str, tmp_path: Path) -> None:
    if (task, model) == ("answer", "gpt-nano"):
        pytest.skip("a GPT does not answer questions")
    start = train_text.begin(settings(task, learned(task).data, tmp_path, model=model), CPU, torch.float32)
    start.task.loss(start.batches[0])["loss"].backward()
    unused = [
        name for name, parameter in start.task.named_parameters() if parameter.requires_grad and parameter.grad is None
    ]
    assert unused == []


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models that have read a little."""
    folder = tmp_path_factory.mktemp("pretrained")
    (folder / "book.txt").write_text(" ".join(row["text"] for row in rows_of("text-classification")) * 3)
    runs = {}
    for objective in ("masked-token", "next-token"):
        out = runs[objective] = folder / objective
        config = (*TINY, "context=32")
        pretrain(Pretrain(str(folder / "book.txt"), objective, out=out, config=config, steps=3, batch_size=4, **FIXED))
    return runs


@pytest.mark.parametrize(
    ("objective", "adapt"),
    [("masked-token", "full"), ("next-token", "full"), ("masked-token", "head"), ("next-token", "lora")],
)
def test_pretrained_models_go_on_learning(learned, pretrained, tmp_path: Path, objective: str, adapt: str) -> None:
    data, run = learned("text-classification").data, pretrained[objective]
    options = {"weights": str(run), "config": (), "epochs": 1, "adapt": adapt}
    figures = train(settings("text-classification", data, tmp_path / "run", **options))
    before, after = read_weights(run / "model.safetensors"), read_weights(Path(figures["run"]) / "model.safetensors")
    changed = {name for name in after if name.startswith("backbone.") and not torch.equal(after[name], before[name])}
    allowed = {
        "full": set(before),
        "head": set(),
        "lora": {name for name in before if "qkv.weight" in name or "proj.weight" in name},
    }[adapt]
    assert changed <= allowed
    assert bool(changed) == bool(allowed)
    assert (tmp_path / "run" / "tokenizer.json").read_bytes() == (run / "tokenizer.json").read_bytes()


def test_the_model_may_be_changed_where_its_weights_stay(learned, pretrained, tmp_path: Path) -> None:
    data = learned("text-classification").data
    options = {"weights": str(pretrained["masked-token"]), "epochs": 1}
    train(settings("text-classification", data, tmp_path / "run", **options | {"config": ("dropout=0.3",)}))
    assert load(tmp_path / "run").backbone.config.dropout == 0.3
    with pytest.raises(SettingError, match="do not fit the changes in --config"):
        train(settings("text-classification", data, tmp_path / "x", **options | {"config": ("width=32",)}))


def test_classes_of_very_different_sizes(tmp_path: Path) -> None:
    rows = [{"text": f"t {n}", "label": "rare" if n % 10 == 0 else "often"} for n in range(100)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = TEXT_TASKS["text-classification"].open(str(tmp_path / "a.jsonl"), choose_text.Columns())
    chances = choose_text.balanced_chances(data)
    rare = np.array([example.label == "rare" for example in data.splits["train"]])
    assert chances[rare].sum() == pytest.approx(0.5)
    weighted = settings("text-classification", tmp_path / "a.jsonl", tmp_path / "weights", balance="weights")
    weights = train_text.begin(weighted, CPU, torch.float32).task.class_weights
    assert weights[1] / weights[0] == pytest.approx(sum(~rare) / sum(rare))
    sampled = settings("text-classification", tmp_path / "a.jsonl", tmp_path / "sampling", balance="sampling")
    np.testing.assert_array_equal(train_text.begin(sampled, CPU, torch.float32).batches.chances, chances)


def test_long_texts_are_cut_with_one_note(learned, vitrail, tmp_path: Path) -> None:
    words = ["train", learned("text-classification").data, "--task", "text-classification", "--weights", "none"]
    words += ["--epochs", 1, "--length", 5, "--device", "cpu", "--out", tmp_path / "run", "--config", *TINY]
    said = vitrail(*words)
    assert said.status == 0, said.err
    assert said.err.count("were cut") + said.err.count("was cut") == 1
    assert "90 of 90 texts are longer than 5 tokens" in said.err
    assert load(tmp_path / "run").length == 5


MISTAKES = [
    (
        ["--task", "text-clasification"],
        "there is no task called 'text-clasification'; did you mean text-classification",
    ),
    (["--task", "tagging", "--mixup", "0.5"], "--mixup is for images, and --task tagging is for text"),
    (["--length", "12"], "--length is for text; leave it out, or name a --task"),
    (["--task", "answer", "--balance", "sampling"], "--balance is for one class a text"),
    (["--task", "text-pair"], "--pair-column"),
    (["--task", "text-classification", "--length", "0"], "--length must be at least 1"),
    (["--task", "text-classification", "--length", "2"], "leave no room"),
    (["--task", "text-classification", "--model", "vit-nano"], "is a model of images"),
    (["--task", "text-classification", "--adapt", "lora"], "keeps trained weights, and bert-nano has none"),
    (["--task", "text-classification", "--config", "depths=3"], "has no setting 'depths'"),
    (["--task", "text-classification", "--tokenizer", "wrds"], "there is no tokenizer called 'wrds'"),
    (["--task", "text-classification", "--batch-size", "500"], "larger than the 72 inputs"),
    (["--task", "text-classification", "--text-column", "body"], "has no column 'body'"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES)
def test_mistakes_are_told_in_a_sentence(learned, vitrail, tmp_path: Path, words: list[str], message: str) -> None:
    data = learned("text-classification").data
    said = vitrail("train", data, "--weights", "none", "--device", "cpu", "--out", tmp_path / "run", *words)
    assert said.status == 2
    assert message in said.err
    assert "Traceback" not in said.err
    assert not (tmp_path / "run").exists()


def test_a_model_of_text_is_not_for_commands_of_images(learned, vitrail, tmp_path: Path) -> None:
    of = learned("text-classification")
    said = vitrail("explain", of.folder, "x.png", "--out", tmp_path / "x.png")
    assert said.status == 2
    assert "is a model of text" in said.err
    said = vitrail("train", of.data, "--weights", of.folder, "--out", tmp_path / "run")
    assert said.status == 2
    assert "Traceback" not in said.err


def test_published_weights_are_the_default(learned, vitrail, tmp_path: Path, monkeypatch) -> None:
    published = Published("bert-base", "hf:nobody/nothing", "MIT", "books")
    monkeypatch.setattr(choose_text, "recommended", {"bert-base": published}.get)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    words = ("train", learned("text-classification").data, "--task", "text-classification", "--out", tmp_path / "run")
    said = vitrail(*words)
    assert said.status == 2
    assert "nobody/nothing" in said.err
    assert "or from random weights with --weights none" in said.err


def test_of_an_encoder_decoder_the_encoder_alone_is_trained(tmp_path: Path) -> None:
    """What a task does not read has no gradient, which several processes would wait for."""
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, rows_of("text-classification"))))
    shape = ("width=16", "depth=1", "decoder_depth=1", "heads=2", "head_width=8", "mlp=32", "context=24")
    (tmp_path / "book.txt").write_text("slow trains to paris, old ships to rome\n" * 60)
    pretrain(
        Pretrain(str(tmp_path / "book.txt"), "span", tmp_path / "t5", model="t5-nano", config=shape, steps=2, **FIXED)
    )
    usual: dict[str, Any] = {"config": (), "epochs": 1}
    train(settings("text-classification", data, tmp_path / "run", weights=str(tmp_path / "t5"), **usual))
    names = set(load(tmp_path / "run").state_dict())
    assert any(name.startswith("backbone.encoder.") for name in names)
    assert not any(name.startswith("backbone.decoder.") for name in names)
