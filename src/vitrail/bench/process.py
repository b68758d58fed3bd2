"""Work in a new process, whose memory holds nothing else."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import TypeVar

from vitrail.errors import UserError, VitrailError

T = TypeVar("T")

CODE = "from vitrail.bench.process import answer; answer()"


def in_new_process(function: Callable[..., T], *arguments: object) -> T:
    """What ``function(*arguments)`` answers, computed by a new Python; what it prints is not seen.

    Unlike with `multiprocessing`, the program that asks is not imported again, so that any script may ask.

    Args:
        function: of a module that can be imported.
        arguments: what can be pickled, as the answer must.

    Raises:
        UserError: the function did; its text is the same. So with :class:`VitrailError`.
        MemoryError: the function had not enough, or the system ended the process for want of it.
        RuntimeError: the function failed otherwise; with its traceback.
    """
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    asked = pickle.dumps((function, arguments))
    done = subprocess.run([sys.executable, "-c", CODE], input=asked, capture_output=True, env=paths, check=False)
    if done.returncode == -getattr(signal, "SIGKILL", 9):
        raise MemoryError("the system ended the process.")
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace").strip() or f"exit status {done.returncode}")
    error, answered = pickle.loads(done.stdout)  # written by ourselves, below
    if error is not None:
        raise error(answered)
    return answered


def answer() -> None:
    """The new process's part: what is asked comes from standard input, the answer goes to standard output."""
    out = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # so that nothing else gets there
    function, arguments = pickle.loads(sys.stdin.buffer.read())
    with os.fdopen(out, "wb") as answers:
        answers.write(pickle.dumps(_tried(function, arguments)))


def _tried(function: Callable[..., T], arguments: tuple[object, ...]) -> tuple[type[Exception] | None, T | str]:
    """The answer; or what kind of error there was, and its text."""
    try:
        return None, function(*arguments)
    except VitrailError as error:
        return UserError if isinstance(error, UserError) else VitrailError, str(error)
    except Exception as error:
        from vitrail.bench.memory import is_out_of_memory  # and PyTorch, which not all work needs

        if is_out_of_memory(error):
            return MemoryError, str(error)
        raise
