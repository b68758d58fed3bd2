from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import is_dataclass

import pytest

import vitrail
from vitrail.cli import main as cli
from vitrail.errors import Interrupted, SettingError, TrainingDiverged
from vitrail.recipes.settings import Stated


def leave(*words: str) -> int:
    """Run the command line in this process; its exit status."""
    with pytest.raises(SystemExit) as left:
        cli.main(words)
    return int(left.value.code or 0)


def python(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("help",)])
def test_the_overview_names_every_command_and_where_to_begin(words, capsys):
    assert leave(*words) == 0
    said = capsys.readouterr().out
    for word, command in cli.COMMANDS.items():
        assert f"  {word}" in said
        assert command.what in said
    assert "vitrail demo" in said
    assert max(map(len, said.splitlines())) <= 110


def test_nothing_heavy_is_imported_for_the_overview_the_version_or_a_wrong_word():
    for word in ("--help", "--version", "trian"):
        code = f"""
import sys
from vitrail.cli.main import main
try:
    main([{word!r}])
except SystemExit:
    print([name for name in ("torch", "numpy", "tyro", "rich", "PIL", "matplotlib") if name in sys.modules])
"""
        assert python(code).stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("word", [word for word, command in cli.COMMANDS.items() if "settings" in command.settings])
def test_flags_are_understood_without_pytorch(word):
    """Which takes seconds to import: so long nobody wants to wait to hear of a flag, or that there is none of it."""
    code = f"""
import sys
from vitrail.cli.main import main
try:
    main([{word!r}, "--help"])
except SystemExit:
    print([name for name in ("torch", "numpy", "PIL", "matplotlib") if name in sys.modules])
"""
    assert python(code).stdout.splitlines()[-1] == "[]"


def test_predicting_imports_nothing_that_only_training_on_many_processes_needs():
    """These would double the time until the first answer."""
    code = """
import sys
import torch
before = set(sys.modules)
import vitrail.recipes.predicting.predict
slow = ("torch.distributed.tensor", "torch.distributed.checkpoint", "sympy", "matplotlib", "pyarrow", "onnxruntime")
print([name for name in slow if name in set(sys.modules) - before])
"""
    assert python(code).stdout == "[]\n"


def test_importing_the_package_imports_no_torch():
    assert python("import sys, vitrail; print('torch' in sys.modules)").stdout == "False\n"


def test_the_version(capsys):
    assert leave("--version") == 0
    assert capsys.readouterr().out == f"vitrail {vitrail.__version__}\n"


def test_it_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "vitrail", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"vitrail {vitrail.__version__}\n")


def test_an_unknown_command_is_answered_with_the_nearest(capsys):
    assert leave("evalute", "run") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "vitrail: there is no command called 'evalute'; did you mean evaluate, generate or serve?\n"


@pytest.mark.parametrize("word", cli.COMMANDS)
class TestEachCommand:
    def test_its_settings_are_a_dataclass_and_its_recipe_a_function(self, word):
        command = cli.COMMANDS[word]
        assert is_dataclass(cli.found(command.settings))
        assert callable(cli.found(command.function))
        assert "json" in cli.found(command.settings).__dataclass_fields__

    def test_help_shows_examples_and_explains_every_flag(self, word, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "100")
        assert leave(word, "--help") == 0
        said = capsys.readouterr().out
        assert said.startswith(f"usage: vitrail {word} ")
        assert f"\nExamples:\n  vitrail {word}" in said
        for riddle in ("(default: None)", "(default: )", "{None", "STR [STR"):
            assert riddle not in said
        settings = cli.found(cli.COMMANDS[word].settings)
        inner = {"stated": Stated.__dataclass_fields__}  # whose flags stand beside the others
        for name in [each for field in settings.__dataclass_fields__ for each in inner.get(field, [field])]:
            flag = {"of_class": "class"}.get(name, name).replace("_", "-")
            assert f"--{flag}" in said or name.upper().rstrip("S") in said


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (SettingError("the sentence."), 2, "vitrail: the sentence.\n"),
        (TrainingDiverged("the sentence."), 1, "vitrail: the sentence.\n"),
        (Interrupted("the sentence.", 15), 143, "vitrail: the sentence.\n"),
        (KeyboardInterrupt(), 130, "vitrail: interrupted.\n"),
        (PermissionError(13, "Permission denied", "f"), 2, "vitrail: f: permission denied; choose another, or ask for"),
    ],
)
def test_errors_are_a_sentence_and_a_status(error, status, text, capsys, monkeypatch):
    def fail(_):
        raise error

    monkeypatch.setattr(cli, "dispatch", fail)
    assert leave("train", "photos") == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(text)
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("error", [ZeroDivisionError(), OSError(5, "Input/output error"), RuntimeError("a bug")])
def test_what_no_person_can_mend_is_not_hidden(error, monkeypatch):
    def fail(_):
        raise error

    monkeypatch.setattr(cli, "dispatch", fail)
    with pytest.raises(type(error)):
        cli.main(["train"])


@pytest.mark.parametrize("error", [SettingError("the sentence."), PermissionError(13, "Permission denied", "file")])
def test_debug_shows_where_any_error_came_from(error, monkeypatch):
    def fail(words):
        assert "--debug" not in words
        raise error

    monkeypatch.setattr(cli, "dispatch", fail)
    with pytest.raises(type(error)):
        cli.main(["train", "--debug", "photos"])


@pytest.mark.parametrize(("errors", "status"), [([None, None], 0), ([None, "damaged"], 0), (["damaged", "damaged"], 2)])
def test_predicting_fails_only_if_no_image_could_be_read(errors, status):
    assert cli.STATUS["predict"]([{"error": error} for error in errors]) == status


@pytest.mark.parametrize(("passed", "status"), [([True, None], 0), ([True, False], 1), ([None], 0)])
def test_proving_fails_if_a_proof_fails_not_if_it_is_skipped(passed, status):
    assert cli.STATUS["prove"]([{"passed": each} for each in passed]) == status


def test_json_is_the_only_thing_on_standard_output(capfd):
    assert leave("models", "vit-n*", "--json") == 0
    captured = capfd.readouterr()
    assert json.loads(captured.out)[0]["name"] == "vit-nano"
    assert captured.err == ""


def test_of_many_processes_only_the_first_prints(capfd, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert leave("models", "vit-n*", "--json") == 0
    assert capfd.readouterr().out == ""


def test_a_reader_that_has_seen_enough_is_no_error():
    """As in `vitrail models | head -1`."""
    code = "from vitrail.cli.main import main; main(['--help'])"
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], env=buffered, **pipes) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 0
