"""The command line: a word chooses a recipe, its settings become the flags, its errors a sentence and a status."""

from __future__ import annotations

import errno
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from vitrail import __version__
from vitrail.allocator import keep_freed_memory
from vitrail.errors import UnknownName, VitrailError


class Command(NamedTuple):
    """A command: where in `vitrail` its settings and its function are, as module:name, and what it does in a few words.

    They are apart where the function needs PyTorch: to import it takes seconds, and flags are understood before.
    """

    settings: str
    function: str
    what: str


COMMANDS = {
    "demo": Command(
        "recipes.demo:Demo", "recipes.demo:demo", "train, evaluate and explain on built-in data, in a minute"
    ),
    "train": Command(
        "recipes.training.settings:Train",
        "recipes.training.train:train",
        "train a model on your images, or go on with a run",
    ),
    "pretrain": Command(
        "recipes.pretraining.settings:Pretrain",
        "recipes.pretraining.pretrain:pretrain",
        "learn from images or text without labels",
    ),
    "evaluate": Command(
        "recipes.evaluating.settings:Evaluate",
        "recipes.evaluating.evaluate:evaluate",
        "accuracy, each class, calibration, plots",
    ),
    "predict": Command(
        "recipes.predicting.settings:Predict", "recipes.predicting.predict:predict", "labels and scores for images"
    ),
    "generate": Command(
        "recipes.generating.settings:Generate",
        "recipes.generating.generate:generate",
        "texts and images that a model makes up",
    ),
    "explain": Command(
        "recipes.explaining.settings:Explain",
        "recipes.explaining.explain:explain",
        "where the model looked, as a picture",
    ),
    "export": Command(
        "recipes.exporting.settings:Export",
        "recipes.exporting.export:export",
        "ONNX, a PyTorch program, timm, Transformers",
    ),
    "serve": Command("serve.settings:Serve", "serve.serve:serve", "an HTTP service and a web page"),
    "models": Command(
        "recipes.informing.settings:Models", "recipes.informing.models:list_models", "which models there are"
    ),
    "info": Command(
        "recipes.informing.settings:Info", "recipes.informing.info:info", "what a model, a run or a data set is"
    ),
    "bench": Command(
        "recipes.benching.settings:Bench",
        "recipes.benching.bench:bench",
        "speed, memory, share of this machine's limit",
    ),
    "cache": Command(
        "recipes.cache:Cache", "recipes.cache:cache", "decoded images that --cache keeps: how large, remove"
    ),
    "study": Command(
        "recipes.studying.settings:Study",
        "recipes.studying.study:study",
        "how data, or masking, matter to a model: many runs",
    ),
    "prove": Command(
        "proofs.settings:Prove", "proofs.prove:prove", "show that a system works, against a strong baseline"
    ),
}

# What the system says where a person may not read or write; any other error of it is not theirs to mend.
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)

# What a command's answer means for the exit status, where it is not always 0.
STATUS: dict[str, Callable[[Any], int]] = {
    "bench": lambda answer: 2 if all(result["error"] for result in answer["results"]) else 0,
    "export": lambda answer: 0 if answer.get("passed", True) else 1,
    "predict": lambda answers: 2 if all(answer["error"] for answer in answers) else 0,
    "prove": lambda proofs: 0 if all(proof["passed"] is not False for proof in proofs) else 1,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit status."""
    # Compute threads that wait shall sleep: spinning, they take the cores from the workers that read images.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        status = dispatch([word for word in words if word != "--debug"])
        sys.stdout.flush()
    except VitrailError as error:
        if debug:
            raise
        print(f"vitrail: {error}", file=sys.stderr)
        status = error.exit_status
    except KeyboardInterrupt:
        print("vitrail: interrupted.", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except OSError as error:
        if debug or error.errno not in NOT_ALLOWED:
            raise
        place = error.filename or "a file"
        print(
            f"vitrail: {place}: {os.strerror(error.errno).lower()}; choose another, or ask for access.", file=sys.stderr
        )
        status = 2
    leave(status)


def leave(status: int) -> NoReturn:
    """End the process with this exit status.

    One of several that torchrun started ends at once, without tearing the interpreter down: a thread of gloo's that
    still holds tensors would want the interpreter's lock then, and abort a run that is complete.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def dispatch(words: list[str]) -> int:
    """Find the command that the first word names and run it; returns the exit status."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if words[0] == "--version":
        print(f"vitrail {__version__}")
        return 0
    if words[0] not in COMMANDS:
        raise UnknownName("command", words[0], COMMANDS)
    return run(words[0], words[1:])


def run(word: str, flags: list[str]) -> int:
    """Parse the flags of one command, call its function, print its answer if it is to be JSON."""
    from vitrail.cli.flags import parsed

    keep_freed_memory()
    command = COMMANDS[word]
    settings = parsed(found(command.settings), word, flags)
    answer = found(command.function)(settings)
    if settings.json and os.environ.get("RANK", "0") == "0":
        print(json.dumps(answer, indent=2, ensure_ascii=False))
    return STATUS.get(word, lambda _: 0)(answer)


def found(place: str) -> Any:
    """What is called ``name`` in a module of `vitrail`, given as ``module:name``."""
    module, name = place.split(":")
    return getattr(importlib.import_module(f"vitrail.{module}"), name)


def overview() -> str:
    """What ``vitrail --help`` prints; nothing is imported for it."""
    width = max(map(len, COMMANDS))
    lines = [f"  {word:{width}}  {command.what}" for word, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: vitrail COMMAND ...",
            "",
            "From a folder of images to a vision model that you can trust, look into and ship.",
            "",
            *lines,
            "",
            "`vitrail COMMAND --help` shows its flags and examples; --debug shows where an error came from.",
            "Begin with `vitrail demo`, or `vitrail train FOLDER`, where FOLDER has a folder of images for each class.",
        ]
    )
