"""``import vitrail`` costs nothing, and gives the names that it promises."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import vitrail


def python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)


def names_for_type_checkers() -> dict[str, str]:
    """The names under ``if TYPE_CHECKING``, and the modules they are imported from."""
    tree = ast.parse(Path(vitrail.__file__).read_text(encoding="utf-8"))
    imports = [node for block in tree.body if isinstance(block, ast.If) for node in block.body]
    return {name.name: node.module or "" for node in imports if isinstance(node, ast.ImportFrom) for name in node.names}


def test_importing_it_imports_nothing_heavy() -> None:
    imported = {
        line.rpartition("|")[2].strip()
        for line in python("-X", "importtime", "-c", "import vitrail").stderr.splitlines()
    }
    assert "vitrail" in imported
    assert not imported & {"torch", "numpy", "PIL", "matplotlib", "rich", "tyro", "safetensors", "huggingface_hub"}


def test_a_name_is_imported_when_it_is_used() -> None:
    program = (
        "import sys, vitrail; assert 'torch' not in sys.modules; vitrail.create; assert 'torch' in sys.modules\n"
        "from vitrail.models import create; assert vitrail.create is create"
    )
    python("-c", program)


def test_the_public_names_are_sorted_and_known_to_type_checkers() -> None:
    assert vitrail.__all__ == sorted(vitrail.__all__)
    assert names_for_type_checkers() == vitrail._HOME
    assert set(vitrail._HOME) == set(vitrail.__all__)
    assert set(vitrail.__all__) < set(dir(vitrail))


@pytest.mark.parametrize("name", vitrail.__all__)
def test_each_public_name_is_there(name: str) -> None:
    value = getattr(vitrail, name)
    assert value is getattr(importlib.import_module(vitrail._HOME[name]), name)
    assert inspect.isclass(value) or inspect.isfunction(value)
    assert inspect.getdoc(value)


def test_the_package_train_does_not_take_the_place_of_the_function() -> None:
    program = (
        "import vitrail, vitrail.train.schedule; from vitrail.train import stop\n"
        "assert 'train' not in vars(vitrail)  # so that it is looked up, and found to be the function"
    )
    python("-c", program)


def test_another_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="module 'vitrail' has no attribute 'trian'"):
        vitrail.trian  # noqa: B018


def test_the_version_is_that_of_the_distribution() -> None:
    assert vitrail.__version__ == importlib.metadata.version("vitrail")


def test_the_package_is_typed() -> None:
    assert (Path(vitrail.__file__).parent / "py.typed").is_file()
