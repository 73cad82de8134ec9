"""A detection pack: made of a bundle, tested, listed, and kept out of the organ map."""

import shutil

import numpy as np
import pytest

from appliance.errors import PackError
from appliance.packs.importing.monai_bundle import import_monai
from appliance.packs.importing.write import Declaration
from tests.importing.bundles import build, small_detector, write_bundle

torch = pytest.importorskip("torch", reason="the extra `import` is not installed")
pytest.importorskip("monai", reason="the extra `import` is not installed")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = write_bundle(tmp_path_factory.mktemp("bundles") / "detector", small_detector(), "retinanet")
    torch.save(build(small_detector()).state_dict(), folder / "models" / "model.pt")
    return folder


@pytest.fixture(scope="module")
def pack(bundle, tmp_path_factory):
    said = Declaration("nodules", "0.1.0", "CC BY 4.0", "open", "Tests of the import.")
    out = tmp_path_factory.mktemp("packs") / "nodules"
    return import_monai(bundle, out, said, structures={"class_0": "lung_nodule"})


def test_the_manifest_says_how_boxes_are_read(pack):
    part = pack.manifest.detection
    assert (pack.manifest.task, pack.provides, pack.structures) == ("detection", ("lung_nodule",), {})
    assert part.strides == ((8, 8, 4), (16, 16, 8), (32, 32, 16))
    assert part.anchor_sizes[1] == ((12.0, 16.0, 8.0), (16.0, 12.0, 10.0), (20.0, 20.0, 12.0))
    assert (part.score_threshold, part.nms_threshold, part.most_detections) == (0.02, 0.22, 300)
    assert part.divisible_by == (32, 32, 16)


def test_the_pack_passes_its_own_test_and_notices_other_weights(pack, tmp_path):
    from appliance.packs.runtime import Computing, open_tested
    from appliance.packs.selftest import self_test, vector_agreement

    assert all(item.passed for item in self_test(pack, threads=2))
    opened = open_tested(pack, Computing("onnxruntime", "f32", 2))
    engine = opened.engine()

    class Other:
        def run(self, hu):
            return engine.run(hu) + np.float32(0.2)

    assert vector_agreement(pack, Other(), expected_in="f32")[0] < 0.98

    class Nothing:
        def run(self, hu):
            return engine.run(hu) * np.float32("nan")

    assert vector_agreement(pack, Nothing(), expected_in="f32")[0] == 0.0


def test_it_takes_no_part_in_the_organ_map(pack, tmp_path):
    from appliance.anatomy.mapper import network_labels
    from appliance.packs.registry import ALL_TASKS, available
    from appliance.packs.rules import Rules
    from appliance.scan import Volume

    rules = Rules(folders=(pack.path,), allow_unsigned=True)
    assert "nodules" not in {item.name for item in available(rules)}
    assert "nodules" in {item.name for item in available(rules, tasks=ALL_TASKS)}
    assert [item.name for item in available(rules, tasks=("detection",))] == ["nodules"]
    with pytest.raises(PackError, match="is for detection"):
        network_labels(Volume(np.zeros((4, 4, 4), np.int16), np.eye(4)), pack, None)


def test_boxes_lie_in_the_patient_whatever_the_order_of_the_voxels(pack):
    from appliance.inference.detection import detect
    from appliance.inference.engines import open_engine
    from appliance.phantom import PhantomOptions, label_map
    from appliance.scan import Volume

    hu = label_map(PhantomOptions(noise_hu=0.0), 4.0)[0][:24]
    affine = np.array([[0, 0, 4.0, -100], [0, 4.0, 0, -80], [4.0, 0, 0, 30], [0, 0, 0, 1]])
    engine = open_engine(pack, engine="openvino", precision="f32", threads=2)
    found = detect(Volume(hu, affine), pack, engine)
    turned = affine @ np.array([[-1.0, 0, 0, hu.shape[0] - 1], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    again = detect(Volume(np.ascontiguousarray(hu[::-1].transpose(0, 2, 1)), turned), pack, engine)
    assert len(found) == len(again) > 0
    assert [item.score for item in found] == pytest.approx([item.score for item in again], abs=1e-4)
    assert np.allclose(sorted(item.centre_mm for item in found), sorted(item.centre_mm for item in again), atol=0.01)


def test_classes_need_a_coded_finding(bundle, tmp_path, said):
    with pytest.raises(PackError, match=r"class_0.*lung_nodule"):
        import_monai(bundle, tmp_path / "pack", said)
    with pytest.raises(PackError, match="no class nodule"):
        import_monai(bundle, tmp_path / "pack", said, structures={"nodule": "lung_nodule"})


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"backbone": "$os.system('touch witness')"}, "resnet_fpn_feature_extractor with one of"),
        ({"feature_extractor": "$__import__('os').getcwd()"}, "would have to be run"),
        ({"anchor_generator": {"_target_": "AnchorGenerator"}}, "AnchorGeneratorWithAnchorShape is known"),
        ({"detector_ops": []}, "no sliding window"),
        (
            {"detector_ops": ["$@detector.set_sliding_window_inferer(roi_size=[64,32,32],mode='gaussian')"]},
            "not by a Gaussian",
        ),
    ],
)
def test_strange_detectors_are_refused(bundle, tmp_path, said, changes, match):
    other = write_bundle(tmp_path / "other", small_detector() | changes, "retinanet")
    shutil.copy(bundle / "models" / "model.pt", other / "models")
    with pytest.raises(PackError, match=match):
        import_monai(other, tmp_path / "pack", said, structures={"class_0": "lung_nodule"})
