from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vitrail.cli.main import main
from vitrail.errors import UnknownName
from vitrail.proofs import prove as module
from vitrail.proofs.proof import Proof
from vitrail.proofs.prove import PROOFS, in_words, prove
from vitrail.proofs.settings import Prove

GOOD = Proof("good", "accuracy", 0.9, 0.5, 0.8, seconds=2.5)
BAD = replace(GOOD, name="bad", measured=0.7)
SKIPPED = replace(GOOD, name="skipped", measured=None, baseline=None, reason="there are no images.")
ASKED = ["name", "measured", "baseline", "bar", "better", "passed", "seconds"]  # by programs that read the JSON


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path | None, Path]]:
    """Three proofs instead of the real ones; the list says with what each was called."""
    calls = []

    def fake(proof: Proof) -> Callable[[Path | None, Path, int], Proof]:
        def prove_it(data: Path | None, out: Path, seed: int) -> Proof:
            calls.append((proof.name, data, out))
            return proof

        return prove_it

    monkeypatch.setattr(module, "PROOFS", {proof.name: fake(proof) for proof in (GOOD, BAD, SKIPPED)})
    return calls


def test_help_names_every_proof(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit):
        main(["prove", "--help"])
    told = capsys.readouterr().out.split("Which proofs")[1].split("--data")[0]
    assert set(PROOFS) <= set(re.findall(r"[a-z0-9-]+", told))


def test_all_proofs_in_their_order(calls: list) -> None:
    answers = prove(Prove(json=True))
    assert [name for name, _, _ in calls] == ["good", "bad", "skipped"]
    same = {"baseline": 0.5, "bar": 0.8, "better": "higher", "seconds": 2.5}
    assert [{key: answer[key] for key in ASKED} for answer in answers] == [
        {"name": "good", "measured": 0.9, "passed": True, **same},
        {"name": "bad", "measured": 0.7, "passed": False, **same},
        {"name": "skipped", "measured": None, "passed": None, **same, "baseline": None},
    ]


def test_named_proofs_with_their_folders(calls: list, tmp_path: Path) -> None:
    prove(Prove(names=("bad", "good"), data=tmp_path / "data", out=tmp_path / "out", json=True))
    assert calls == [(name, tmp_path / "data", tmp_path / "out" / name) for name in ("bad", "good")]


def test_each_seed_has_its_folder_and_its_answer(calls: list, tmp_path: Path) -> None:
    answers = prove(Prove(names=("bad", "good"), out=tmp_path, seeds=(0, 3), json=True))
    assert [(answer["name"], answer["seed"]) for answer in answers] == [
        ("bad", 0), ("bad", 3), ("good", 0), ("good", 3)
    ]  # fmt: skip
    assert [out for _, _, out in calls] == [
        tmp_path / f"seed-{seed}" / name for name in ("bad", "good") for seed in (0, 3)
    ]


def test_runs_are_thrown_away_without_out(calls: list) -> None:
    prove(Prove(names=("good",), json=True))
    _, data, out = calls[0]
    assert data is None
    assert out.name == "good"
    assert not out.parent.exists()


def test_an_unknown_proof_is_refused_before_any_is_run(calls: list) -> None:
    with pytest.raises(UnknownName, match="did you mean good"):
        prove(Prove(names=("bad", "goood")))
    assert calls == []


@pytest.mark.parametrize(
    ("names", "status"), [(["good"], 0), (["good", "bad"], 1), (["skipped"], 0), (["nonsense"], 2)]
)
def test_exit_status(names: list[str], status: int) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["prove", *names])
    assert exit.value.code == status


def test_json_is_all_that_standard_output_gets(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["prove", "--json"])
    output = capsys.readouterr()
    assert [answer["passed"] for answer in json.loads(output.out)] == [True, False, None]
    assert "good: passed" in output.err


def test_the_table_tells_every_outcome(capsys: pytest.CaptureFixture[str]) -> None:
    prove(Prove())
    words = capsys.readouterr().out.split()
    assert {"good", "bad", "skipped", "passed", "FAILED", "0.9", "0.7", "0.5", "0.8"} <= set(words)


def test_in_words() -> None:
    assert in_words(GOOD) == "good: passed, accuracy 0.9 (bar 0.8, baseline 0.5) in 2 s"
    assert in_words(BAD) == "bad: FAILED, accuracy 0.7 (bar 0.8, baseline 0.5) in 2 s"
    assert in_words(SKIPPED) == "skipped: skipped, there are no images."
