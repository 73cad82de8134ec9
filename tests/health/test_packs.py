from appliance.config import Settings
from appliance.health.measure import measure
from appliance.health.model import Problem
from appliance.services.health import installed_packs


def settings(tmp_path, *packs) -> Settings:
    return Settings.model_validate({"box": {"state_directory": tmp_path}, "work": {"packs": packs}})


def test_a_damaged_pack_is_a_problem(tmp_path):
    folder = tmp_path / "damaged"
    folder.mkdir()
    (folder / "pack.toml").write_text("name = ")
    configured = settings(tmp_path, folder)
    packs = installed_packs(configured)
    assert packs is None
    assert Problem.PACK_FAILED in measure(configured, packs=packs).problems


def test_a_folder_without_a_pack_is_a_problem(tmp_path):
    assert installed_packs(settings(tmp_path, tmp_path)) is None


def test_the_shipped_packs_fit_into_the_message(tmp_path):
    configured = settings(tmp_path)
    packs = installed_packs(configured)
    assert packs is not None
    assert measure(configured, packs=packs).packs == packs
