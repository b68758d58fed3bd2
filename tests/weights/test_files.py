"""References become files: of a folder, or of the Hub, whatever happens on the way."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from vitrail.errors import CheckpointError, DiskFull, SettingError, UserError
from vitrail.weights.files import NoNetwork, fetch, find, hub_reference

WEIGHTS = bytes(range(256)) * 40
CONFIG = b'{"model_type": "vit"}'


def refusal(reference: object, kind: type[UserError] = CheckpointError) -> str:
    """The one sentence with which a reference is refused."""
    with pytest.raises(kind) as caught:
        find(str(reference))
    said = str(caught.value)
    assert "\n" not in said
    assert said.endswith(".")
    return said


# ------------------------------------------------------------------------------------------------------ the references


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("hf:google/vit-base-patch16-224", ("google/vit-base-patch16-224", None, None)),
        ("hf:a/b@v1.0", ("a/b", "v1.0", None)),
        ("hf:a/b/c/d.npz", ("a/b", None, "c/d.npz")),
        ("hf:a/b@main/c.pth", ("a/b", "main", "c.pth")),
        ("timm:vit_small_patch16_224.augreg_in21k", ("timm/vit_small_patch16_224.augreg_in21k", None, None)),
        ("timm:a.b@v1", ("timm/a.b", "v1", None)),
        ("a/b", None),
        ("C:\\weights.pth", None),
        ("hfx:a/b", None),
    ],
)
def test_references(reference: str, parts: tuple[str, str | None, str | None] | None) -> None:
    assert hub_reference(reference) == parts


@pytest.mark.parametrize("reference", ["hf:", "hf:gpt2", "hf:a/b@", "hf:a/b@@c", "timm:", "hf:a b/c", "hf:/b"])
def test_half_a_reference(reference: str) -> None:
    assert f"'{reference}' names no repository; write hf:ORG/NAME" in refusal(reference, SettingError)


# --------------------------------------------------------------------------------------------------------- on the disk


def write(folder: Path, **files: bytes | dict[str, Any]) -> Path:
    """A folder with files; their names are written with a double underscore for a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (folder / name.replace("__", ".")).write_bytes(data)
    return folder


def test_a_folder_of_transformers(tmp_path: Path) -> None:
    preprocessor = {"do_resize": True}
    folder = write(tmp_path, model__safetensors=b"1", config__json=CONFIG, preprocessor_config__json=preprocessor)
    write(folder, pytorch_model__bin=b"2")
    files = find(folder)
    assert files.weights == (folder / "model.safetensors",)
    assert (files.name, files.config, files.preprocessor) == (str(folder), {"model_type": "vit"}, preprocessor)


def test_one_file_with_what_lies_beside_it(tmp_path: Path) -> None:
    folder = write(tmp_path, model__safetensors=b"1", other__pth=b"2", config__json=CONFIG)
    files = find(folder / "other.pth")
    assert files.weights == (folder / "other.pth",)
    assert files.config == {"model_type": "vit"}
    assert files.preprocessor == {}


def test_the_only_file_of_a_folder_needs_no_usual_name(tmp_path: Path) -> None:
    assert find(write(tmp_path, anything__npz=b"1", readme__md=b"2")).weights == (tmp_path / "anything.npz",)


def test_the_oldest_configs_of_timm_are_flat(tmp_path: Path) -> None:
    flat = {"architecture": "resnet18", "num_classes": 3, "input_size": [3, 64, 64], "crop_pct": 0.9}
    config = find(write(tmp_path, model__safetensors=b"1", config__json=flat)).config
    assert config["architecture"] == "resnet18"
    assert config["pretrained_cfg"]["input_size"] == [3, 64, 64]


def test_several_files_or_none(tmp_path: Path) -> None:
    assert "should hold one file of weights and has none; name the file" in refusal(write(tmp_path / "none"))
    said = refusal(write(tmp_path / "two", a__pth=b"1", b__npz=b"2"))
    assert "has several: a.pth, b.npz; name the file" in said


def test_what_is_not_there(tmp_path: Path) -> None:
    said = refusal(tmp_path / "missing.pth")
    assert said == (
        f"there is no {tmp_path / 'missing.pth'}; give a run's folder, a file of weights, hf:ORG/NAME or timm:NAME."
    )


def test_the_parts_of_an_index(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"}}
    folder = write(tmp_path, model__safetensors__index__json=index)
    parts = (folder / "model-1.safetensors", folder / "model-2.safetensors")
    assert find(folder).weights == parts
    assert find(folder / "model.safetensors.index.json").weights == parts


@pytest.mark.parametrize("elsewhere", ["../secret", "/etc/passwd", "sub/part.bin"])
def test_an_index_that_names_a_file_elsewhere(tmp_path: Path, elsewhere: str) -> None:
    folder = write(tmp_path, pytorch_model__bin__index__json={"weight_map": {"a": elsewhere}})
    assert f"names the file {elsewhere}, which is not beside it" in refusal(folder)


@pytest.mark.parametrize("index", [{}, {"weight_map": []}, {"weight_map": {"a": 1}}, {"weight_map": None}])
def test_an_index_of_nothing(tmp_path: Path, index: dict[str, Any]) -> None:
    assert "is no index of weights: it has no weight_map" in refusal(
        write(tmp_path, model__safetensors__index__json=index)
    )


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"\xff", b"[" * 100_000])
@pytest.mark.parametrize("name", ["config__json", "preprocessor_config__json"])
def test_damaged_json(tmp_path: Path, name: str, content: bytes) -> None:
    folder = write(tmp_path, model__safetensors=b"1", **{name: content})
    assert f"{name.replace('__', '.')} is damaged" in refusal(folder)


# ---------------------------------------------------------------------------------------------------------- on the hub


@pytest.fixture
def repository(hub: Any) -> Any:
    """A repository ``org/net`` with weights and a config."""
    return hub.add("org/net", {"model.safetensors": WEIGHTS, "config.json": CONFIG})


def blobs(cache: Path) -> list[Path]:
    """Whatever lies in the cache as a file's content."""
    return [path for path in cache.glob("**/blobs/*") if path.read_bytes() != CONFIG]


def test_the_first_download_and_the_second_without_a_network(hub: Any, repository: Any) -> None:
    first = find("hf:org/net")
    assert [path.read_bytes() for path in first.weights] == [WEIGHTS]
    assert first.config == {"model_type": "vit"}
    assert first.preprocessor == {}
    assert [file for method, file, _ in hub.requests if method == "GET" and file] == [
        "config.json",
        "model.safetensors",
    ]
    hub.requests.clear()
    assert find("hf:org/net") == first
    assert [(method, file) for method, file, _ in hub.requests] == [("HEAD", "config.json")]
    hub.close()
    assert find("hf:org/net") == first


def test_without_a_config_the_cache_is_enough_too(hub: Any, repository: Any) -> None:
    del repository.files["config.json"]
    first = find("hf:org/net")
    assert first.config == {}
    hub.close()
    assert find("hf:org/net") == first


def test_all_files_are_of_the_same_commit(hub: Any, repository: Any) -> None:
    """Also if another one is published between two of them."""
    for file in ("config.json", "model.safetensors", "preprocessor_config.json"):
        fetch("org/net", file)
    repository.files["model.safetensors"], repository.commit = WEIGHTS[::-1], "d1" * 20
    files = find("hf:org/net")
    assert files.weights[0].read_bytes() == WEIGHTS[::-1]
    assert "d1" * 20 in str(files.weights[0])
    pinned = find(f"hf:org/net@{'c0' * 20}")
    assert pinned.weights[0].read_bytes() == WEIGHTS


def test_a_revision_and_a_file_by_name(hub: Any, repository: Any) -> None:
    repository.files["old/weights.npz"] = b"npz"
    repository.files["old/config.json"] = b'{"model_type": "old"}'
    files = find("hf:org/net@v1/old/weights.npz")
    assert files.weights[0].read_bytes() == b"npz"
    assert files.config == {"model_type": "old"}


def test_the_parts_of_an_index_are_fetched_from_beside_it(hub: Any, repository: Any) -> None:
    index = {"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
    for folder in ("", "sub/"):
        repository.files[f"{folder}model.safetensors.index.json"] = json.dumps(index).encode()
        repository.files |= {f"{folder}{part}.safetensors": f"{folder}{part}".encode() for part in (1, 2)}
    del repository.files["model.safetensors"]
    assert [path.read_bytes() for path in find("hf:org/net").weights] == [b"1", b"2"]
    files = find("hf:org/net/sub/model.safetensors.index.json")
    assert [path.read_bytes() for path in files.weights] == [b"sub/1", b"sub/2"]
    del repository.files["sub/2.safetensors"]
    repository.commit = "e2" * 20
    assert "a part that model.safetensors.index.json names is not in the repository" in refusal(
        "hf:org/net/sub/model.safetensors.index.json"
    )


def test_a_connection_that_breaks_is_resumed(hub: Any, repository: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)
    repository.breaks["model.safetensors"] = [1000, 3000]
    assert find("hf:org/net").weights[0].read_bytes() == WEIGHTS
    ranges = [asked for method, file, asked in hub.requests if (method, file) == ("GET", "model.safetensors")]
    assert ranges == [None, "bytes=1000-", "bytes=4000-"]


def test_a_connection_that_breaks_for_good_leaves_the_cache_sound(hub: Any, repository: Any, tmp_path: Path) -> None:
    repository.breaks["model.safetensors"] = [1000] + [0] * 20
    assert "hf:org/net@c0c0" in (said := refusal("hf:org/net"))
    assert "model.safetensors could not be downloaded (" in said
    assert "try again" in said
    assert blobs(tmp_path / "cache") == []
    repository.breaks.clear()
    assert find("hf:org/net").weights[0].read_bytes() == WEIGHTS


def test_a_wrong_hash_is_refused_and_the_next_try_succeeds(hub: Any, repository: Any, tmp_path: Path) -> None:
    right = hashlib.sha256(WEIGHTS).hexdigest()
    repository.files["model.safetensors"] = WEIGHTS[:-1] + b"x"
    repository.stated["model.safetensors"] = right
    said = refusal("hf:org/net")
    assert f"not {right[:12]}…, and was removed from the cache; try again" in said
    assert "model.safetensors arrived with the hash" in said
    assert blobs(tmp_path / "cache") == []
    repository.files["model.safetensors"] = WEIGHTS
    assert find("hf:org/net").weights[0].read_bytes() == WEIGHTS


def test_a_newer_commit_is_verified_too(hub: Any, repository: Any) -> None:
    find("hf:org/net")
    repository.commit = "d1" * 20
    repository.stated["model.safetensors"] = "0" * 64
    assert "arrived with the hash" in refusal("hf:org/net")


def test_what_the_hub_refuses(hub: Any, repository: Any) -> None:
    repository.refusal = (403, "GatedRepo")
    assert refusal("hf:org/net") == (
        "hf:org/net is gated: accept its terms on the Hugging Face Hub, then log in with `hf auth login`."
    )
    repository.refusal = None
    assert "hf:org/other is not on the Hugging Face Hub, or is private; check its name" in refusal("hf:org/other")
    assert "hf:org/net@v9: there is no such revision" in refusal("hf:org/net@v9")
    assert "hf:org/net/a.npz: the repository has no a.npz; name its file" in refusal("hf:org/net/a.npz")
    del repository.files["model.safetensors"]
    repository.commit = "d1" * 20
    assert "the repository has none of model.safetensors, model.safetensors.index.json" in refusal("hf:org/net")


def test_a_name_of_timm_without_its_tag(hub: Any) -> None:
    assert "timm's have a tag, as in vit_small_patch16_224.augreg_in21k" in refusal("timm:vit_small_patch16_224")
    assert "tag" not in refusal("timm:vit_small_patch16_224.in31k")


@pytest.mark.parametrize("reference", ["hf:a..b/c", "hf:a/b--c", "hf:org/net/../../etc/passwd"])
def test_names_that_no_repository_or_file_can_have(hub: Any, repository: Any, reference: str) -> None:
    assert "could not be downloaded" in refusal(reference)
    assert hub.requests == []


def test_no_network_at_all(hub: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It is said at once, and nothing else is said."""
    hub.close()
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("it should not wait"))
    said = refusal("hf:org/net", NoNetwork)
    assert "hf:org/net is not in the cache and the Hugging Face Hub cannot be reached (" in said
    assert said.endswith("; try again with a network.")
    assert capsys.readouterr().err == ""


def test_a_hub_out_of_order(hub: Any, repository: Any) -> None:
    repository.refusal = (503, "")
    assert "cannot be reached (Server error '503 Service Unavailable'" in refusal("hf:org/net", NoNetwork)


def test_offline_by_choice(hub: Any, repository: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refusal("hf:org/net", NoNetwork)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    files = find("hf:org/net")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert find("hf:org/net") == files
    assert hub.requests == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(hub: Any, repository: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    import huggingface_hub.file_download as module

    whole = module.http_get

    def until_it_is_full(url: str, temp_file: Any, **options: Any) -> None:
        if not url.endswith("model.safetensors"):
            return whole(url, temp_file, **options)
        temp_file.write(WEIGHTS[:500])
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(module, "http_get", until_it_is_full)
        assert refusal("hf:org/net", DiskFull).startswith(
            f"the disk is full: {tmp_path / 'cache'} could not be written"
        )
    assert blobs(tmp_path / "cache") == []
    assert find("hf:org/net").weights[0].read_bytes() == WEIGHTS
