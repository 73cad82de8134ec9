import hashlib

import pytest

from appliance.anatomy.structures import STRUCTURES
from appliance.errors import PackError
from appliance.packs.manifest import MANIFEST
from appliance.packs.pack import load


def edit(pack, old, new):
    path = pack / MANIFEST
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_shipped_pack_loads(copied_pack):
    pack = load(copied_pack)
    assert pack.name == "trunk"
    frame = {"body", "lung_left", "lung_right", "airways", "bone", "vertebral_bodies"}
    organs = {"heart", "aorta", "pulmonary_trunk", "liver", "spleen", "kidney_left", "kidney_right"}
    assert set(pack.structures) == frame | organs
    assert set(pack.structures) <= set(STRUCTURES)


def test_digest_is_over_the_manifest(copied_pack):
    expected = "sha256:" + hashlib.sha256((copied_pack / MANIFEST).read_bytes()).hexdigest()
    assert load(copied_pack).digest == expected


def test_every_file_beside_the_manifest_has_a_digest(copied_pack):
    files = {path.name for path in copied_pack.iterdir()} - {MANIFEST}
    assert files == set(load(copied_pack).manifest.files)


@pytest.mark.parametrize("name", ["trunk.onnx", "MODEL_CARD.md", "test_vector.npz"])
def test_one_altered_byte_is_found(copied_pack, name):
    path = copied_pack / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(PackError, match=name):
        load(copied_pack)


def test_a_missing_file_is_named(copied_pack):
    (copied_pack / "trunk.onnx").unlink()
    with pytest.raises(PackError, match=r"trunk\.onnx cannot be read"):
        load(copied_pack)


def test_a_folder_without_manifest_is_no_pack(tmp_path):
    with pytest.raises(PackError, match="not a model pack"):
        load(tmp_path)


def test_an_unknown_key_is_refused(copied_pack):
    edit(copied_pack, "format = 1", "format = 1\nflavour = 'mild'")
    with pytest.raises(PackError, match="flavour"):
        load(copied_pack)


def test_an_unknown_structure_is_refused(copied_pack):
    edit(copied_pack, 'name = "airways"', 'name = "gills"')
    with pytest.raises(PackError, match="gills"):
        load(copied_pack)


def test_a_wrong_code_is_refused(copied_pack):
    edit(copied_pack, STRUCTURES["bone"].code, "12345")
    with pytest.raises(PackError, match="code"):
        load(copied_pack)


def test_a_path_out_of_the_pack_is_refused(copied_pack):
    edit(copied_pack, '"MODEL_CARD.md" =', '"../MODEL_CARD.md" =')
    with pytest.raises(PackError, match="not allowed"):
        load(copied_pack)


def test_a_network_without_digest_is_refused(copied_pack):
    edit(copied_pack, 'path = "trunk.onnx"', 'path = "other.onnx"')
    with pytest.raises(PackError, match="no digest"):
        load(copied_pack)


def test_broken_toml_is_a_sentence(copied_pack):
    (copied_pack / MANIFEST).write_text("format = ")
    with pytest.raises(PackError, match="not a TOML file"):
        load(copied_pack)


def test_the_pack_is_small(copied_pack):
    assert sum(path.stat().st_size for path in copied_pack.iterdir()) < 10_000_000


def test_the_card_says_what_the_labels_are(copied_pack):
    card = (copied_pack / "MODEL_CARD.md").read_text()
    assert "not experts" in card


def test_the_manifest_names_the_patients_held_out(copied_pack):
    provenance = load(copied_pack).manifest.provenance
    assert provenance.tested_on == ("LIDC-IDRI 0002", "LIDC-IDRI 0009", "Lung-PET-CT-Dx A0002")
    learned = " ".join(provenance.trained_on)
    assert not any(patient in learned for patient in ("0002", "0009", "A0002"))
