"""A small BERT reads some text, and its [CLS] then learns whether a sentence praises a film."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from vitrail.console import say
from vitrail.data.text.examples import LabelledText, TextData
from vitrail.data.text.labelled import Columns, open_labelled
from vitrail.errors import SettingError
from vitrail.proofs.data import text
from vitrail.proofs.proof import Proof
from vitrail.recipes.pretraining.pretrain import pretrain
from vitrail.recipes.pretraining.settings import Pretrain
from vitrail.recipes.training.settings import Train
from vitrail.recipes.training.train import train

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)  # the regression's C, of which validation chooses


def prove(data: Path | None, out: Path, seed: int = 0) -> Proof:
    """Accuracy on a tenth of rt-polarity's 10,662 sentences (Pang and Lee 2005); the baseline says the commoner class.

    The network of 4 layers of 128 first fills in hidden words of WikiText-2's validation and test texts and of the
    sentences that it is to be trained on, 3.4 MB in all, then learns their labels. Logistic regression on the words and
    pairs of words of the same sentences (tf-idf) is told beside it. It is no baseline, for so small a network, with so
    little to read, does not know more than words say.
    """
    proof = Proof("bert-finetune", "accuracy of [CLS] on film reviews", measured=None, baseline=None, bar=0.65)
    try:
        reviews, more = text("rt-polarity", data), text("wikitext-2", data)
        sentences = open_labelled(reviews, Columns(), pairs=False, seed=seed)
        words = bag_of_words(sentences)
    except SettingError as error:
        return replace(proof, reason=str(error))
    began = time.perf_counter()
    corpus = write_corpus(sentences, more, out / "corpus")
    read = pretrain(
        Pretrain(
            data=str(corpus),
            objective="masked-token",
            model="bert-nano",
            tokenizer="words",
            options=("mask_ratio=0.3",),
            out=out / "read",
            overwrite=True,
            steps=1500,
            batch_size=32,
            seed=seed,
        )
    )
    figures = train(
        Train(
            data=str(reviews),
            task="text-classification",
            weights=read["run"],
            config=("dropout=0.1",),
            out=out / "reviews",
            overwrite=True,
            epochs=3,
            learning_rate=5e-4,
            seed=seed,
        )
    )
    seconds = round(time.perf_counter() - began, 1)
    commoner = majority(sentences)
    say(f"bert-finetune: [CLS] {figures['top1']:.2%}, words and pairs {words:.2%}, the commoner class {commoner:.2%}")
    return replace(proof, measured=figures["top1"], baseline=commoner, seconds=seconds)


def majority(data: TextData[LabelledText]) -> float:
    """Test accuracy of the commonest label in training."""
    commonest, _ = Counter(each.label for each in data.splits["train"]).most_common(1)[0]
    return sum(each.label == commonest for each in data.splits["test"]) / len(data.splits["test"])


def write_corpus(sentences: TextData[LabelledText], more: Path, folder: Path) -> Path:
    """The training sentences without their labels and a further text, to learn from; validation's, to measure by."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, name in (("train", "train-reviews"), ("validation", "valid-reviews")):
        lines = [json.dumps({"text": each.text}) for each in sentences.splits[split]]  # type: ignore[index]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    articles = "".join(file.read_text(encoding="utf-8") for file in sorted(more.glob("*.txt")))
    (folder / "train-articles.txt").write_text(articles, encoding="utf-8")
    return folder


def bag_of_words(data: TextData[LabelledText]) -> float:
    """Test accuracy of logistic regression on the tf-idf of words and pairs of words; validation chooses its C.

    Raises :class:`SettingError` if scikit-learn is not installed.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise SettingError("the baseline is computed with scikit-learn: pip install 'vitrail[demo]'.") from error
    texts = {split: [each.text for each in of] for split, of in data.splits.items()}
    labels = {split: [each.label for each in of] for split, of in data.splits.items()}
    words = TfidfVectorizer(token_pattern=r"\S+", ngram_range=(1, 2), sublinear_tf=True).fit(texts["train"])
    rows = {split: words.transform(of) for split, of in texts.items()}
    models = [
        LogisticRegression(C=strength, max_iter=1000).fit(rows["train"], labels["train"]) for strength in STRENGTHS
    ]
    best = max(models, key=lambda model: model.score(rows["validation"], labels["validation"]))
    return float(best.score(rows["test"], labels["test"]))
