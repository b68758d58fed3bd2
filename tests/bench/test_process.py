import os
import signal
import sys

import pytest

from vitrail.bench.process import _tried, in_new_process
from vitrail.cli.main import dispatch
from vitrail.errors import SettingError, TrainingDiverged, UserError, VitrailError

# What is asked for must be found by its module's name in the new process: functions of libraries, and of this package.


def test_the_answer_comes_from_another_process():
    assert in_new_process(os.getpid) != os.getpid()
    assert in_new_process(divmod, 17, 5) == (3, 2)


def test_what_it_prints_is_not_taken_for_the_answer():
    assert in_new_process(print, "hello") is None


def test_a_mistake_is_told_in_the_same_words():
    with pytest.raises(UserError, match=r"^there is no command called 'trian'; did you mean train"):
        in_new_process(dispatch, ["trian"])


def test_what_is_missing_is_memory():
    with pytest.raises(MemoryError):
        in_new_process(bytearray, 10**17)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal")
def test_a_process_that_the_system_killed_had_not_enough_memory():
    with pytest.raises(MemoryError):
        in_new_process(signal.raise_signal, signal.SIGKILL)


def test_a_failure_shows_where_it_was():
    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*could not convert string to float"):
        in_new_process(float, "one")


@pytest.mark.parametrize(
    ("error", "kind"), [(SettingError("no"), UserError), (TrainingDiverged("no"), VitrailError), (MemoryError(), None)]
)
def test_kinds_of_errors_that_cross(error, kind):
    def fail():
        raise error

    assert _tried(fail, ()) == (kind or MemoryError, str(error))
