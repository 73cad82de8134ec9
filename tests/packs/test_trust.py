"""Every way in which a pack must be refused, with its sentence."""

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from appliance.errors import ConfigurationError, PackError
from appliance.packs.key_ring import KeyRing, Role, make_key, read_private_key, read_public_key
from appliance.packs.manifest import MANIFEST, SIGNATURE
from appliance.packs.pack import load
from appliance.packs.registry import available, load_trusted
from appliance.packs.rules import Rules
from appliance.packs.signature import sign, trust_of


def edit_signature(pack: Path, **changes: str) -> None:
    path = pack / SIGNATURE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_signed_pack_says_whose_key_it_was(make_pack, rules, site_key):
    _, public = read_private_key(site_key)
    assert load_trusted(make_pack(), rules).trust == f"signed:{public.key}"


def test_an_unsigned_pack_is_refused(make_pack, rules):
    with pytest.raises(PackError, match="it is not signed"):
        load_trusted(make_pack(key=None), rules)


def test_development_mode_takes_an_unsigned_pack_and_says_so(make_pack, rules):
    assert load_trusted(make_pack(key=None), replace(rules, allow_unsigned=True)).trust == "unsigned"


@pytest.mark.parametrize("allow_unsigned", [False, True])
def test_a_wrong_signature_is_refused_even_in_development_mode(make_pack, rules, allow_unsigned):
    pack = make_pack()
    edit_signature(pack, signature="0" * 128)
    with pytest.raises(PackError, match="its signature is wrong"):
        load_trusted(pack, replace(rules, allow_unsigned=allow_unsigned))


def test_a_signature_of_another_time_is_wrong(make_pack, rules):
    pack = make_pack()
    edit_signature(pack, signed_at="2020-01-01T00:00:00Z")
    with pytest.raises(PackError, match="its signature is wrong"):
        load_trusted(pack, rules)


def test_an_altered_manifest_is_refused(make_pack, rules):
    pack = make_pack()
    path = pack / MANIFEST
    path.write_text(path.read_text().replace('licence_class = "open"', 'licence_class = "restricted"'))
    with pytest.raises(PackError, match=r"pack\.toml is not the one that was signed"):
        load_trusted(pack, rules)


def test_the_signature_of_another_pack_is_refused(make_pack, rules):
    first, second = make_pack("98.0.0"), make_pack("99.0.0")
    (second / SIGNATURE).write_bytes((first / SIGNATURE).read_bytes())
    with pytest.raises(PackError, match="not the one that was signed"):
        load_trusted(second, rules)


def test_an_altered_file_is_refused(make_pack, rules):
    pack = make_pack()
    path = pack / "network.bin"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(PackError, match=r"network\.bin was altered"):
        load_trusted(pack, rules)


def test_a_file_that_is_not_listed_is_refused(make_pack, rules):
    pack = make_pack()
    (pack / "extra.py").write_text("print()")
    with pytest.raises(PackError, match=r"extra\.py is not listed"):
        load_trusted(pack, rules)


def test_a_link_is_refused(make_pack, rules):
    pack = make_pack()
    (pack / "network.bin").rename(pack.parent / "elsewhere")
    (pack / "network.bin").symlink_to(pack.parent / "elsewhere")
    with pytest.raises(PackError, match="is a link"):
        load_trusted(pack, rules)


def test_an_unknown_key_is_refused_and_named(make_pack, site_key):
    _, public = read_private_key(site_key)
    with pytest.raises(PackError, match=f"key {public.key}, which this box does not trust"):
        load_trusted(make_pack(), Rules())


def test_an_expired_key_is_refused(make_pack, rules):
    pack = load(make_pack())
    ring = KeyRing.read(rules.keys)
    later = datetime.now(UTC) + timedelta(days=31)
    with pytest.raises(PackError, match="expired on"):
        trust_of(pack, ring, allow_unsigned=False, at=later)


def test_an_expired_key_does_not_sign(make_pack, site_key):
    with pytest.raises(PackError, match="expired on"):
        sign(load(make_pack()), site_key, now=datetime.now(UTC) + timedelta(days=31))


def test_a_damaged_signature_file_is_refused(make_pack, rules):
    pack = make_pack()
    (pack / SIGNATURE).write_text("{")
    with pytest.raises(PackError, match=r"pack\.sig is damaged"):
        load_trusted(pack, rules)


def test_another_role_than_the_keys_is_refused(make_pack, rules, site_key):
    pack = make_pack()
    private, _ = read_private_key(site_key)
    from appliance.packs.signature import Signature

    claimed = Signature.model_validate_json((pack / SIGNATURE).read_text()).model_copy(update={"role": Role.RELEASE})
    edit_signature(pack, role="release", signature=private.sign(claimed.message()).hex())
    with pytest.raises(PackError, match="signed as release"):
        load_trusted(pack, rules)


def test_a_vendor_may_not_replace_a_shipped_pack_but_sign_its_own(make_pack, tmp_path):
    key, _ = make_key(tmp_path / "vendor", "vendor", role=Role.VENDOR, holder="Vendor", days=30)
    rules = Rules(keys=(key.parent,))
    assert load_trusted(make_pack(name="torso", key=key), rules).trust.startswith("signed:")
    with pytest.raises(PackError, match="may not replace"):
        load_trusted(make_pack(name="trunk", key=key), rules)


def test_a_release_key_comes_with_the_package_only(tmp_path):
    make_key(tmp_path, "mine", role=Role.RELEASE, holder="Nobody", days=30)
    with pytest.raises(ConfigurationError, match="release keys come with the appliance only"):
        KeyRing.read([tmp_path])


def test_a_private_key_is_for_its_owner_only(tmp_path):
    path, _ = make_key(tmp_path, "mine", role=Role.SITE, holder="Nobody", days=30)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        read_private_key(path)


def test_a_key_is_never_overwritten(tmp_path):
    make_key(tmp_path, "mine", role=Role.SITE, holder="Nobody", days=30)
    with pytest.raises(PackError, match="a key of this name already"):
        make_key(tmp_path, "mine", role=Role.SITE, holder="Nobody", days=30)


def test_a_public_key_with_a_false_id_is_refused(tmp_path):
    path, _ = make_key(tmp_path, "mine", role=Role.SITE, holder="Nobody", days=30)
    public = path.with_name("mine.public.json")
    public.write_text(json.dumps(json.loads(public.read_text()) | {"key": "0" * 16}))
    with pytest.raises(ConfigurationError, match="does not belong"):
        read_public_key(public)


def test_no_private_key_lies_in_the_source_tree():
    root = Path(__file__).parents[2]
    folders = [root / name for name in ("appliance", "models", "docs", "provisioning")]
    assert not [path for folder in folders for path in folder.rglob("*.pem") if "PRIVATE" in path.read_text()]


def test_one_bad_pack_in_a_configured_folder_stops_them_all(make_pack, rules):
    pack = make_pack(key=None)
    with pytest.raises(PackError, match="not signed"):
        available(replace(rules, folders=(pack,)))


def test_verification_takes_constant_memory(tmp_path):
    """A pack of 300 MB is verified by a process that may hold little more than its code."""
    big = tmp_path / "big.bin"
    with big.open("wb") as stream:
        stream.truncate(300 << 20)
    code = (
        "import resource, sys, pathlib\n"
        "from appliance.packs.pack import sha256_of\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "sha256_of(pathlib.Path(sys.argv[1]))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(big)], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 16 << 10  # KiB
