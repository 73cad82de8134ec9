"""From a results folder to a pack that the appliance loads, runs and trusts as little as any other."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from appliance.errors import PackError
from appliance.packs.importing import checkpoint as reading
from appliance.packs.importing.checkpoint import read_checkpoint
from appliance.packs.importing.nnunet import import_nnunet
from appliance.packs.importing.write import Declaration, phantom_tile, to_toml
from appliance.packs.pack import load
from tests.packs.killed import killed_at_each_step
from tests.small_disk import small_disk

torch = pytest.importorskip("torch", reason="the extra `import` is not installed")
pytest.importorskip("dynamic_network_architectures", reason="the extra `import` is not installed")


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def resave(results, **changes):
    path = results / "fold_0" / "checkpoint_final.pth"
    torch.save(read_checkpoint(path) | changes, path)


@pytest.fixture(scope="module")
def imported(made_results, tmp_path_factory):
    out = tmp_path_factory.mktemp("packs") / "imported"
    said = Declaration("test_pack", "0.1.0", "CC BY 4.0", "open", "Tests of the import.", ("children",))
    return import_nnunet(made_results, out, said, folds=("0",), mirror=True)


def test_the_pack_says_what_nnunet_did(imported):
    wanted = imported.manifest.input
    assert (wanted.spacing_mm, wanted.patch, wanted.overlap) == ((3.0, 2.0, 2.5), (16, 24, 32), 0.5)
    assert (wanted.weighting, wanted.resampling, wanted.mirror_axes) == ("gaussian", "nnunet", (0, 1, 2))
    assert (wanted.clip_hu, wanted.fill_hu) == ((-900.0, 1200.0), 40)


def test_classes_became_coded_structures(imported):
    assert imported.structures == {"liver": 1, "ribs_left": 2, "spleen": 3}
    assert imported.channel_labels[:6] == (0, 1, 2, 2, 3, 0)


def test_the_pack_passes_its_own_test(imported):
    from appliance.packs.selftest import self_test

    found = self_test(imported, threads=2)
    assert {(item.engine, item.precision) for item in found} == {("openvino", "f32"), ("onnxruntime", "f32")}
    assert all(item.passed for item in found)


def test_the_card_says_what_is_known_and_what_is_not(imported):
    card = (imported.path / "MODEL_CARD.md").read_text()
    assert "CC BY 4.0" in card
    assert "Not for: children" in card
    assert "Assumed: SimpleITKIO" in card
    assert "What is not known" in card


def logits_of_torch(results, fold, tile):
    """What the network itself answers behind nnU-Net's normalisation, computed without any of the importer."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    from tests.importing.conftest import LABELS, PLANS

    keywords = dict(PLANS["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"])
    keywords |= {"conv_op": torch.nn.Conv3d, "norm_op": torch.nn.InstanceNorm3d, "nonlin": torch.nn.LeakyReLU}
    network = PlainConvUNet(input_channels=1, num_classes=len(LABELS), deep_supervision=False, **keywords).eval()
    network.load_state_dict(read_checkpoint(results / f"fold_{fold}" / "checkpoint_final.pth")["network_weights"])
    scaled = (np.clip(tile.astype(np.float32), -900, 1200) - np.float32(40.5)) / np.float32(300)
    with torch.no_grad():
        return network(torch.from_numpy(scaled)[None, None])[0].numpy()


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_both_engines_answer_as_pytorch_does(imported, made_results, engine):
    from appliance.inference.engines import open_engine

    tile = phantom_tile(imported.manifest.input.patch, imported.manifest.input)
    found = open_engine(imported, engine=engine, precision="f32", threads=2).run(tile)
    assert np.allclose(found, logits_of_torch(made_results, "0", tile), atol=0.02)


@pytest.mark.slow
def test_folds_are_averaged(made_results, tmp_path, said):
    from appliance.inference.engines import open_engine

    pack = import_nnunet(made_results, tmp_path / "both", said, half=False)
    assert "folds 0, 1" in pack.manifest.provenance.recipe
    tile = phantom_tile(pack.manifest.input.patch, pack.manifest.input)
    expected = (logits_of_torch(made_results, "0", tile) + logits_of_torch(made_results, "1", tile)) / 2
    assert np.allclose(open_engine(pack, precision="f32", threads=2).run(tile), expected, atol=1e-3)


def test_plans_of_another_training_are_refused(results, tmp_path, said):
    plans = json.loads((results / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["patch_size"] = [32, 32, 32]
    (results / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(PackError, match=r"does not belong to this checkpoint.*patch_size"):
        import_nnunet(results, tmp_path / "out", said)


def test_weights_that_do_not_fit_the_plans_are_refused(results, tmp_path, said):
    plans = json.loads((results / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"] = [8, 8, 8]
    (results / "plans.json").write_text(json.dumps(plans))
    for fold in ("0", "1"):
        path = results / f"fold_{fold}" / "checkpoint_final.pth"
        content = read_checkpoint(path)
        content["init_args"]["plans"] = None
        torch.save(content, path)
    with pytest.raises(PackError, match="do not fit the network"):
        import_nnunet(results, tmp_path / "out", said)


def test_a_dataset_with_other_classes_is_refused(results, tmp_path, said):
    rewrite(results / "dataset.json", labels={"background": 0, "liver": 1})
    with pytest.raises(PackError, match="do not fit the network"):
        import_nnunet(results, tmp_path / "out", said)


def test_an_unknown_architecture_is_refused(results, tmp_path, said):
    plans = json.loads((results / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["architecture"]["network_class_name"] = "somewhere.Primus"
    (results / "plans.json").write_text(json.dumps(plans))
    resave(results, init_args={"configuration": "3d_fullres"})
    with pytest.raises(PackError, match="architecture Primus is not known"):
        import_nnunet(results, tmp_path / "out", said, folds=("0",))


def test_plans_may_not_name_any_class_they_like(results, tmp_path, said):
    plans = json.loads((results / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["nonlin"] = "os.system"
    (results / "plans.json").write_text(json.dumps(plans))
    resave(results, init_args={"configuration": "3d_fullres"})
    with pytest.raises(PackError, match=r"'os\.system' as nonlin"):
        import_nnunet(results, tmp_path / "out", said, folds=("0",))


def test_a_cascade_is_refused(results, tmp_path, said):
    resave(results, init_args={"configuration": "3d_cascade_fullres"})
    with pytest.raises(PackError, match="second stage of a cascade"):
        import_nnunet(results, tmp_path / "out", said, folds=("0",))


def test_another_resampling_is_not_pretended(results, tmp_path, said):
    plans = json.loads((results / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["resampling_fn_data"] = "resample_torch_fornnunet"
    (results / "plans.json").write_text(json.dumps(plans))
    resave(results, init_args={"configuration": "3d_fullres"})
    with pytest.raises(PackError, match="--resampling area"):
        import_nnunet(results, tmp_path / "out", said, folds=("0",))


def test_mirroring_needs_a_network_that_saw_mirrored_scans(results, tmp_path, said):
    resave(results, inference_allowed_mirroring_axes=None)
    with pytest.raises(PackError, match="trained without mirroring"):
        import_nnunet(results, tmp_path / "out", said, folds=("0",), mirror=True)


def test_a_missing_fold_is_named(results, tmp_path, said):
    with pytest.raises(PackError, match="has no fold 4; it has 0, 1"):
        import_nnunet(results, tmp_path / "out", said, folds=("4",))


def test_a_folder_of_something_else_is_refused(tmp_path, said):
    with pytest.raises(PackError, match=r"no plans\.json"):
        import_nnunet(tmp_path, tmp_path / "out", said)


def test_an_existing_pack_is_never_overwritten(results, tmp_path, said):
    (tmp_path / "out").mkdir()
    with pytest.raises(PackError, match="is there already"):
        import_nnunet(results, tmp_path / "out", said)


def test_nothing_is_left_of_a_refused_import(results, tmp_path, said):
    (results / "fold_1" / "checkpoint_final.pth").write_bytes(b"PK")
    with pytest.raises(PackError):
        import_nnunet(results, tmp_path / "out", said)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_import_that_is_killed_leaves_a_whole_pack_or_none(made_results, tmp_path):
    found = killed_at_each_step("imported", tmp_path / "out" / "organs", made_results)
    # At the least: its folder, three files that Python writes, a sync of each of its six and of the folder, the rename.
    assert found["before"] >= 12
    assert found["after"] >= 1
    assert found["left"] == ["organs"]


@pytest.mark.slow
def test_a_full_disk_is_a_sentence_and_leaves_nothing(made_results, tmp_path, said):
    needed = sum(path.stat().st_size for path in import_nnunet(made_results, tmp_path / "whole", said).path.iterdir())
    for percent in (10, 40, 70, 95):
        with small_disk(tmp_path / f"disk_{percent}", needed * percent // 100 >> 10) as disk:
            with pytest.raises(PackError, match=r"cannot be written \((No space left|.*iostream error)"):
                import_nnunet(made_results, disk / "out", said)
            assert list(disk.iterdir()) == []


@pytest.mark.parametrize(("licence", "use"), [("", "Tests."), ("CC BY 4.0", " ")])
def test_licence_and_intended_use_are_asked_for(licence, use):
    with pytest.raises(PackError, match="not guessed"):
        Declaration("a", "0.1.0", licence, "open", use)


def test_without_the_extra_a_sentence_says_where_to_import(monkeypatch, results, tmp_path, said):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else real(name))
    with pytest.raises(PackError, match="on a workstation, not on the box, and need torch"):
        reading.require_extra()


def run(*arguments):
    from appliance.cli import main

    return CliRunner().invoke(main, ["packs", "import", *map(str, arguments)])


@pytest.mark.slow
def test_the_command_makes_a_pack(results, tmp_path):
    out = tmp_path / "out"
    asked = ["--from", "nnunet", "--out", out, "--name", "livers", "--licence", "CC0", "--intended-use", "Tests."]
    answer = run(results, *asked, "--fold", "0", "--map", "spleen=", "--orientation", "RAS", "--step-size", "0.75")
    assert answer.exit_code == 0, answer.output
    assert "unsigned" in answer.output
    pack = load(out)
    assert list(pack.structures) == ["liver", "ribs_left"]
    assert (pack.manifest.input.orientation, pack.manifest.input.overlap) == ("head-front-right", 0.25)


def test_the_command_refuses_without_a_licence(results, tmp_path):
    answer = run(results, "--from", "nnunet", "--out", tmp_path / "out", "--name", "livers")
    assert answer.exit_code == 4
    assert "--licence" in answer.output


def test_toml_survives_what_people_write():
    import tomllib

    content = {"a": 'say "no"', "list": [1, 2], "table": {"b": 1.5}, "many": [{"c": [1]}], "files": {"x.onnx": "y"}}
    assert tomllib.loads(to_toml(content)) == content
