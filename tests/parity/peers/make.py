"""Writes the networks of one family's cases, with images and the logits that the peer gives for them.

Run by an interpreter that has timm, torchvision and Transformers:  python make.py FAMILY FOLDER
Cases of papers' code that is not in `VITRAIL_REPOSITORIES` are left out, and it says so.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))


def photos(case) -> list[torch.Tensor]:
    """Two real images from `VITRAIL_DATA`, if it is set, in -1 … 1; their channels are repeated as need be."""
    if "VITRAIL_DATA" not in os.environ:
        return []
    images = []
    for name in ("astronaut.png", "coffee.png"):
        picture = Image.open(Path(os.environ["VITRAIL_DATA"], "photos", name)).convert("RGB").resize(case.size[::-1])
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 127.5 - 1
        images.append(pixels.repeat(2, 1, 1)[None, : case.channels])
    return images


@torch.no_grad()
def main(family: str, out: Path) -> None:
    torch.set_num_threads(1)
    from case import NoClone

    cases = __import__(family).CASES
    for number, (name, case) in enumerate(cases.items()):
        folder = out / str(number)
        folder.mkdir(parents=True)
        torch.manual_seed(number)
        try:
            model = case.save(str(folder))
        except NoClone as error:
            shutil.rmtree(folder)
            print(f"{name} is left out: {error}", file=sys.stderr)
            continue
        images = torch.cat([torch.rand(2, case.channels, *case.size) * 2 - 1, *photos(case)])
        logits = model(images)
        logits = getattr(logits, "logits", logits)
        said = {"layout": case.layout, "model": case.model, "changes": dict(case.changes), "case": name}
        said["loaded_with"] = dict(case.loaded_with)
        (folder / "case.json").write_text(json.dumps(said))
        (folder / "expected").mkdir()
        save_file({"images": images, "logits": logits.contiguous()}, str(folder / "expected" / "logits.safetensors"))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
