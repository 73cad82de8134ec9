import re
from pathlib import Path

import pytest

import appliance
from appliance.errors import PackError
from appliance.packs import registry
from appliance.packs.pack import MANIFEST


def rewrite(pack, **changes):
    path = pack / MANIFEST
    text = path.read_text()
    for key, value in changes.items():
        text = re.sub(rf'^{key} = ".*"$', f'{key} = "{value}"', text, count=1, flags=re.MULTILINE)
    path.write_text(text)


def test_the_shipped_pack_is_there():
    assert [pack.name for pack in registry.available()] == ["trunk"]


def test_a_higher_version_of_the_same_pack_wins(copied_pack):
    rewrite(copied_pack, version="99.0.0")
    (pack,) = registry.available([copied_pack])
    assert pack.version == "99.0.0"


def test_versions_are_numbers_not_words(copied_pack):
    rewrite(copied_pack, version="0.0.9")
    (pack,) = registry.available([copied_pack])
    assert pack.version != "0.0.9"


def test_two_packs_for_one_structure_are_refused(copied_pack):
    rewrite(copied_pack, name="torso")
    with pytest.raises(PackError, match="torso and trunk both provide"):
        registry.available([copied_pack])


def test_a_folder_of_packs_is_searched(copied_pack):
    rewrite(copied_pack, version="99.0.0")
    (pack,) = registry.available([copied_pack.parent])
    assert pack.version == "99.0.0"


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(PackError, match="no model pack here"):
        registry.available([tmp_path])


def test_an_installed_package_uses_the_packs_inside_itself(tmp_path, copied_pack, monkeypatch):
    package = tmp_path / "site-packages" / "appliance"
    inside = package / "shipped_packs" / "trunk"
    inside.parent.mkdir(parents=True)
    copied_pack.rename(inside)
    monkeypatch.setattr(appliance, "__file__", str(package / "__init__.py"))
    assert registry.shipped_folders() == (inside,)


def test_a_checkout_uses_the_packs_beside_the_package():
    beside = Path(appliance.__file__).parent.parent / "models"
    if not beside.is_dir():
        pytest.skip("not a source checkout")
    assert registry.shipped_folders() == (beside / "trunk",)
