"""From a bundle to a pack, and what is refused on the way."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from appliance.errors import PackError
from appliance.packs.importing.monai_bundle import import_monai
from appliance.packs.importing.write import phantom_tile
from tests.importing.bundles import build, small_segmenter, write_bundle

torch = pytest.importorskip("torch", reason="the extra `import` is not installed")
pytest.importorskip("monai", reason="the extra `import` is not installed")


@pytest.fixture(scope="module")
def made_bundle(tmp_path_factory):
    folder = write_bundle(tmp_path_factory.mktemp("bundles") / "made", small_segmenter())
    torch.save(build(small_segmenter()).state_dict(), folder / "models" / "model.pt")
    return folder


@pytest.fixture
def bundle(made_bundle, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(made_bundle, tmp_path / "bundle")


def change(bundle, **changes):
    path = bundle / "configs" / "inference.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(bundle, tmp_path, said, match, **options):
    with pytest.raises(PackError, match=match):
        import_monai(bundle, tmp_path / "pack", said, **options)
    assert not (tmp_path / "pack").exists()


def test_the_pack_says_what_monai_did(bundle, tmp_path, said):
    pack = import_monai(bundle, tmp_path / "pack", said, half=False)
    wanted = pack.manifest.input
    assert (wanted.orientation, wanted.spacing_mm, wanted.patch) == ("left-back-head", (4.0, 4.0, 5.0), (16, 24, 32))
    assert (wanted.resampling, wanted.tiling, wanted.weighting) == ("monai", "stepped", "constant")
    assert (wanted.overlap, wanted.fill_hu, wanted.skip_air) == (0.5, -900, False)
    assert pack.structures == {"body": 1, "lung_left": 2, "lung_right": 3, "bone": 4}
    from appliance.inference.engines import open_engine

    tile = phantom_tile(wanted.patch, wanted)
    scaled = (np.clip(tile.astype(np.float32), -900, 600) + 900) / 1500
    with torch.no_grad():
        expected = build(small_segmenter())(torch.from_numpy(scaled)[None, None])[0].numpy()
    network = build(small_segmenter())
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    for engine in ("openvino", "onnxruntime"):
        found = open_engine(pack, engine=engine, precision="f32", threads=1).run(tile)
        assert np.allclose(found, expected, atol=1e-3)


def test_classes_without_a_coded_term_are_refused_or_left_out(bundle, tmp_path, said):
    path = bundle / "configs" / "metadata.json"
    path.write_text(path.read_text().replace('"lung_left"', '"left_thing"'))
    refused(bundle, tmp_path, said, "left_thing.*--map")
    pack = import_monai(bundle, tmp_path / "pack", said, structures={"left_thing": ""})
    assert list(pack.structures) == ["body", "lung_right", "bone"]


def test_one_channel_behind_a_sigmoid_gets_a_background(bundle, tmp_path, said):
    config = small_segmenter()
    config["network_def"]["out_channels"] = 1
    config["postprocessing"]["transforms"] = [
        {"_target_": "Activationsd", "sigmoid": True},
        {"_target_": "AsDiscreted", "threshold": 0.5},
    ]
    network = build(config)
    torch.save(network.state_dict(), bundle / "models" / "model.pt")
    change(bundle, network_def=config["network_def"], postprocessing=config["postprocessing"])
    path = bundle / "configs" / "metadata.json"
    described = json.loads(path.read_text())
    described["network_data_format"]["outputs"]["pred"]["channel_def"] = {"0": "spleen"}
    path.write_text(json.dumps(described))
    pack = import_monai(bundle, tmp_path / "pack", said)
    assert (pack.structures, pack.channel_labels[:3]) == ({"spleen": 1}, (0, 1, 0))


def test_several_channels_behind_a_sigmoid_are_refused(bundle, tmp_path, said):
    change(
        bundle, postprocessing={"_target_": "Compose", "transforms": [{"_target_": "Activationsd", "sigmoid": True}]}
    )
    refused(bundle, tmp_path, said, "may overlap")


@pytest.mark.parametrize(
    ("network", "match"),
    [
        ({"_target_": "os.system", "command": "touch witness"}, r"os\.system, which is not on the list"),
        ({"_target_": "scripts.my.UNet"}, "not on the list"),
        ({"_target_": "UNet", "spatial_dims": "$__import__('os').system('touch witness')"}, "would have to be run"),
        ({"_target_": "UNet", "act": {"_target_": "os.system", "command": "touch witness"}}, "plain value"),
        ({"_target_": "UNet", "spatial_dims": 2}, "three-dimensional"),
        ({"_target_": "UNet", "in_channels": 2}, "one three-dimensional image"),
        ({"_target_": "UNet", "strange": 1}, "makes no network"),
        ("$import os", "would have to be run"),
        (None, "no component"),
    ],
)
def test_strange_networks_are_refused_and_nothing_is_run(bundle, tmp_path, said, monkeypatch, network, match):
    monkeypatch.chdir(tmp_path)
    change(bundle, network_def=network, network=network)
    refused(bundle, tmp_path, said, match)
    assert not (tmp_path / "witness").exists()


def test_imports_of_the_configuration_are_not_run(bundle, tmp_path, said):
    witness = tmp_path / "witness"
    change(bundle, imports=[f"$__import__('os').mkdir('{witness}')"], initialize=[f"$open('{witness}', 'w')"])
    import_monai(bundle, tmp_path / "pack", said)
    assert not witness.exists()


class Executes:
    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.witness),)


def test_weights_that_would_run_something_are_refused(bundle, tmp_path, said):
    torch.save({"weights": Executes(tmp_path / "witness")}, bundle / "models" / "model.pt")
    refused(bundle, tmp_path, said, "reading it would run")
    assert not (tmp_path / "witness").exists()


def test_programs_are_refused(bundle, tmp_path, said):
    (bundle / "models" / "model.pt").rename(bundle / "models" / "model.ts")
    refused(bundle, tmp_path, said, "TorchScript")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_program_under_the_name_of_weights_is_refused(bundle, tmp_path, said):
    traced = torch.jit.trace(torch.nn.Conv3d(1, 1, 1), torch.zeros(1, 1, 2, 2, 2))
    torch.jit.save(traced, bundle / "models" / "model.pt")
    refused(bundle, tmp_path, said, "TorchScript program")


def test_weights_of_another_network_are_refused(bundle, tmp_path, said):
    other = small_segmenter()
    other["network_def"]["channels"] = [4, 16]
    torch.save(build(other).state_dict(), bundle / "models" / "model.pt")
    refused(bundle, tmp_path, said, "do not fit the network")


def test_weights_that_are_no_numbers_are_refused(bundle, tmp_path, said):
    weights = torch.load(bundle / "models" / "model.pt", weights_only=True)
    next(iter(weights.values()))[:] = float("nan")
    torch.save(weights, bundle / "models" / "model.pt")
    refused(bundle, tmp_path, said, "NaN")


def test_truncated_weights_are_refused(bundle, tmp_path, said):
    path = bundle / "models" / "model.pt"
    path.write_bytes(path.read_bytes()[:2000])
    refused(bundle, tmp_path, said, "damaged")


def test_weights_under_a_usual_name_are_found(bundle, tmp_path, said):
    path = bundle / "models" / "model.pt"
    torch.save({"epoch": 3, "state_dict": torch.load(path, weights_only=True)}, path)
    import_monai(bundle, tmp_path / "pack", said)


def test_tiles_that_the_network_cannot_take_are_refused(bundle, tmp_path, said):
    refused(bundle, tmp_path, said, "the tile's shape", patch=(15, 17, 19))


def test_other_inferers_are_refused(bundle, tmp_path, said):
    change(bundle, inferer={"_target_": "SimpleInferer"})
    refused(bundle, tmp_path, said, "sliding windows")


def test_a_folder_that_is_no_bundle_is_refused(tmp_path, said):
    refused(tmp_path, tmp_path, said, "not a MONAI bundle")
    refused(tmp_path / "bundle.zip", tmp_path, said, "not a folder")


def test_the_command_makes_a_pack(bundle, tmp_path):
    from appliance.cli import main

    words = ["packs", "import", str(bundle), "--from", "monai", "--out", str(tmp_path / "pack"), "--name", "made"]
    words += ["--licence", "Apache-2.0", "--intended-use", "Tests.", "--map", "bone=", "--patch", "16", "16", "16"]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "provides body, lung_left, lung_right" in done.output
    card = (tmp_path / "pack" / "MODEL_CARD.md").read_text()
    assert "MONAI bundle Proof unet 0.1.0, UNet" in card
    assert "Tiles of 16 × 16 × 16 as the caller wished" in card
    assert "Left out, with no coded structure: bone" in card


def test_resampling_of_another_maker_is_refused(bundle, tmp_path):
    from appliance.cli import main

    words = ["packs", "import", str(bundle), "--from", "monai", "--out", str(tmp_path / "pack"), "--name", "made"]
    done = CliRunner().invoke(main, [*words, "--resampling", "nnunet"])
    assert done.exit_code == 2
