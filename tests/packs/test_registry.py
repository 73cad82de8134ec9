from dataclasses import replace
from pathlib import Path

import pytest

import appliance
from appliance.errors import PackError
from appliance.packs import registry


def test_the_shipped_pack_is_there():
    (pack,) = registry.available()
    assert (pack.name, pack.trust) == ("trunk", "shipped")


def test_a_higher_version_of_the_same_pack_wins(make_pack, rules):
    (pack,) = registry.available(replace(rules, folders=(make_pack("99.0.0"),)))
    assert pack.version == "99.0.0"
    assert pack.trust.startswith("signed:")


def test_versions_are_numbers_not_words(make_pack, rules):
    (pack,) = registry.available(replace(rules, folders=(make_pack("0.0.9"),)))
    assert pack.version != "0.0.9"


def test_two_packs_for_one_structure_are_refused(make_pack, rules):
    with pytest.raises(PackError, match=r"torso and trunk both provide|trunk and torso both provide"):
        registry.available(replace(rules, folders=(make_pack(name="torso"),)))


@pytest.mark.parametrize("winner", ["torso", "trunk"])
def test_the_configuration_says_which_of_two_packs_wins(make_pack, rules, winner):
    (pack,) = registry.available(replace(rules, folders=(make_pack(name="torso"),), prefer=(winner,)))
    assert pack.name == winner


def test_a_folder_of_packs_is_searched(make_pack, rules):
    (pack,) = registry.available(replace(rules, folders=(make_pack("99.0.0").parent,)))
    assert pack.version == "99.0.0"


def test_an_empty_folder_is_an_error(tmp_path, rules):
    with pytest.raises(PackError, match="no model pack here"):
        registry.available(replace(rules, folders=(tmp_path,)))


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
