"""Run a bundle with MONAI's own parser, transforms and inferers: ``python compare_monai.py BUNDLE SCAN OUT``.

``OUT`` (npz) receives the preprocessed image, its affine (to RAS mm) and either labels on that grid, or boxes in voxels
and their scores. Nothing of the appliance is used.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import numpy as np


def provide_torchvision() -> str:
    """See that MONAI's detector finds what it wants of torchvision, and say what that is.

    It wants one class that hands out the answers of some layers, and two that are named and not used here. Where
    torchvision is not installed, or is one for another PyTorch, a stand-in for these three is enough.
    """
    import contextlib
    import importlib
    import sys
    import types

    import torch

    real = "torchvision.models.detection"
    try:
        with contextlib.suppress(ImportError):
            return importlib.import_module(real).__name__
    except RuntimeError:  # its compiled half is for another machine; MONAI uses none of it
        sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")
        return importlib.import_module(real).__name__

    class IntermediateLayerGetter(torch.nn.ModuleDict):
        def __init__(self, model, return_layers: dict) -> None:
            names = [name for name, _ in model.named_children()]
            last = max(names.index(name) for name in return_layers)
            super().__init__(dict(list(model.named_children())[: last + 1]))
            self.return_layers = dict(return_layers)

        def forward(self, image):
            answers = {}
            for name, part in self.items():
                image = part(image)
                if name in self.return_layers:
                    answers[self.return_layers[name]] = image
            return answers

    contents = {
        "torchvision": {"__version__": "0"},
        "torchvision.models": {},
        "torchvision.models._utils": {"IntermediateLayerGetter": IntermediateLayerGetter},
        "torchvision.models.detection": {},
        "torchvision.models.detection._utils": {
            "Matcher": type("Matcher", (), {}),
            "BalancedPositiveNegativeSampler": type("BalancedPositiveNegativeSampler", (), {}),
        },
        "torchvision.models.detection.backbone_utils": {"_validate_trainable_layers": lambda *_args, **_keys: 5},
    }
    for name, content in contents.items():
        module = types.ModuleType(name)
        module.__dict__.update(content)
        module.__path__, module.__file__ = [], __file__  # MONAI takes no package without a file
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    return "a stand-in for torchvision"


def prepared(config: dict, scan: str):
    """Preprocess a scan with MONAI, as the bundle says; ``(1, x, y, z)`` with its affine."""
    from monai.bundle import ConfigParser

    parser = ConfigParser(copy.deepcopy(config))
    return parser.get_parsed_content("preprocessing")({"image": scan})["image"]


def detector_of(config: dict):
    """Build MONAI's detector from the configuration."""
    from monai.bundle import ConfigParser

    parser = ConfigParser(copy.deepcopy(config))
    parser["device"] = "cpu"
    parser.get_parsed_content("detector_ops")
    return parser.get_parsed_content("detector")


def segmented(bundle: Path, config: dict, image) -> dict:
    import torch
    from monai.bundle import ConfigParser

    parser = ConfigParser(copy.deepcopy(config))
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    inferer = parser.get_parsed_content("inferer")
    with torch.no_grad():
        logits = inferer(image[None], network)
    largest = torch.topk(logits[0].as_tensor(), 2, dim=0).values
    return {
        "labels": logits[0].argmax(0).numpy().astype(np.uint8),
        "margin": (largest[0] - largest[1]).numpy().astype(np.float32),
    }


def detected(bundle: Path, config: dict, image) -> dict:
    import torch

    detector = detector_of(config)
    detector.network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    detector.eval()
    with torch.no_grad():
        (found,) = detector([image.as_tensor()], use_inferer=True)
    return {"boxes": found["box"].numpy(), "scores": found["label_scores"].numpy(), "kinds": found["label"].numpy()}


def main() -> None:
    """Run one bundle."""
    import torch

    bundle, scan, out = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    torch.set_num_threads(2)
    config = json.loads((bundle / "configs" / "inference.json").read_text())
    helper = provide_torchvision() if "detector" in config else ""  # before MONAI looks for it
    image = prepared(config, scan)
    found = (detected if "detector" in config else segmented)(bundle, config, image)
    np.savez(out, image=image[0].numpy(), affine=np.asarray(image.affine), helper=helper, **found)


if __name__ == "__main__":
    main()
