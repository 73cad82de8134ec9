"""A bundle's configuration is read and never run."""

import pytest

from appliance.errors import PackError
from appliance.packs.importing.monai_config import Configuration, Described, NotUnderstood, read_table


def of(**content):
    return Configuration(content, "inference.json")


def test_references_lead_through_tables_and_lists():
    found = of(a={"b": [10, {"c": "@d"}]}, d=7, e="@a#b#1#c", f="@a::b::0")
    assert (found.get("e"), found.get("f")) == (7, 10)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$[1.5, 1.5, -2]", [1.5, 1.5, -2]),
        ("$(96, 96, 96)", [96, 96, 96]),
        ("$not @off", True),
        ("$'model.pt' if @off else 'low.pt'", "low.pt"),
        ("$@size", [3, 4]),
        ("$[@size, None]", [[3, 4], None]),
    ],
)
def test_literals_and_choices_are_understood(text, value):
    assert of(off=False, size=[3, 4], it=text).get("it") == value


@pytest.mark.parametrize(
    "text",
    [
        "$import os",
        "$__import__('os').system('true') + 1",
        "$1 + 1",
        "$[x for x in (1, 2)]",
        "$lambda: 1",
        "$open('/etc/passwd').read()[0]",
        "$@size[0]",
        "$torch.float32",
        "$(lambda: 1)()",
        "$'a' * 10**9",
        "$" + "(" * 500 + ")" * 500,
        "$reference_0",
        "$\x00",
    ],
)
def test_all_else_is_not_understood_and_refused_when_it_is_needed(text):
    found = of(size=[1], it=text)
    value = found.get("it")
    assert isinstance(value, NotUnderstood)
    with pytest.raises(PackError, match=r"would have to be run.*write the value itself"):
        found.plain({"deep": [value]}, "it")


def test_a_call_is_described_and_not_made(tmp_path):
    witness = tmp_path / "witness"
    found = of(it=f"$os.mkdir('{witness}')", network={"_target_": "os.mkdir", "path": str(witness)})
    assert found.get("it") == Described("os.mkdir", (str(witness),))
    assert found.get("network") == Described("os.mkdir", (), {"path": str(witness)})
    assert not witness.exists()


def test_methods_of_components_keep_their_owner():
    found = of(detector={"_target_": "X"}, it="$@detector.set_parameters(0.5, most=@most)", most=3)
    assert found.get("it") == Described("@detector.set_parameters", (0.5,), {"most": 3})


def test_moving_to_a_device_changes_nothing():
    assert of(a={"_target_": "UNet"}, b="$@a.to(@device)", device="cpu").get("b") == Described("UNet")


def test_switched_off_components_say_so():
    found = of(
        raw=True,
        off="$(not @raw)",
        a={"_target_": "X", "_disabled_": "@off"},
        b={"_target_": "X", "_disabled_": "@raw"},
    )
    assert (found.get("a").disabled, found.get("b").disabled) == (False, True)


def test_a_list_that_holds_itself_is_refused():
    endless = []
    endless.append(endless)
    with pytest.raises(PackError, match="without end"):
        of(it=endless).get("it")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"it": "@it"}, "circles|itself"),
        ({"it": "@other", "other": ["@it"]}, "circles|itself"),
        ({"it": "@absent#deep"}, "not there"),
        ({"it": "%other.json::key"}, "another file"),
        ({"it": {"_target_": "X", "_mode_": "callable"}}, "not understood"),
        ({"it": {"_target_": 3}}, "not understood"),
    ],
)
def test_references_that_lead_nowhere_are_refused(content, match):
    with pytest.raises(PackError, match=match):
        of(**content).get("it")


def test_references_that_multiply_are_cut_short():
    content = {f"n{number}": [f"@n{number + 1}"] * 8 for number in range(20)} | {"n20": 1}
    with pytest.raises(PackError, match="without end"):
        of(**content).get("n0")


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("a.json", "[1]", "table"),
        ("a.json", "{", "JSON"),
        ("a.json", "[" * 100_000, "JSON"),
        ("a.json", " " * (5 << 20), "larger"),
    ],
)
def test_damaged_files_are_refused(tmp_path, name, text, match):
    (tmp_path / name).write_text(text)
    with pytest.raises(PackError, match=match):
        read_table(tmp_path / name)


def test_yaml_builds_no_objects(tmp_path):
    pytest.importorskip("yaml", reason="the extra `import` is not installed")
    (tmp_path / "a.yaml").write_text("a: 1\nb: [2, 3]\n")
    assert read_table(tmp_path / "a.yaml") == {"a": 1, "b": [2, 3]}
    (tmp_path / "b.yaml").write_text(f"a: !!python/object/apply:os.mkdir ['{tmp_path}/witness']\n")
    with pytest.raises(PackError, match="plain YAML"):
        read_table(tmp_path / "b.yaml")
    assert not (tmp_path / "witness").exists()
