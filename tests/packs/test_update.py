"""Distribution by The Update Framework, from a real HTTP server and from a folder, honest and under attack."""

import functools
import http.server
import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from appliance.errors import ConfigurationError, PackError
from appliance.packs.choice import read_choice
from appliance.packs.key_ring import Role, make_key
from appliance.packs.repository import publish
from appliance.packs.update import look, update


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_arguments):
        pass


@pytest.fixture
def repository(tmp_path):
    return tmp_path / "repository"


@pytest.fixture
def release(repository, tmp_path, make_pack):
    """Publish a version and return the root metadata."""

    def make(*versions: str, name: str = "trunk", key=None, **options) -> Path:
        arguments = {"key": key} if key else {}
        packs = [make_pack(version, name, **arguments) for version in versions]
        return publish(repository, tmp_path / "repository-keys", packs, **({"days": 14} | options))

    return make


@pytest.fixture(params=["http", "folder"])
def source(request, repository):
    if request.param == "folder":
        yield str(repository)
        return
    repository.mkdir(exist_ok=True)
    handler = functools.partial(Silent, directory=str(repository))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def root(release, tmp_path):
    """The first root metadata, carried to the box beforehand."""
    return Path(shutil.copy(release("9.0.0"), tmp_path / "root.json"))


def versions(packs) -> list[str]:
    return [pack.version for pack in packs]


def one(repository: Path, pattern: str) -> Path:
    return max(repository.rglob(pattern), key=lambda path: int(path.name.partition(".")[0]))


def test_newer_packs_are_installed_and_only_once(source, root, release, rules):
    assert versions(update(source, root, rules)) == ["9.0.0"]
    assert update(source, root, rules) == []
    release("9.1.0", "9.2.0")
    assert versions(update(source, root, rules)) == ["9.2.0"]
    assert read_choice(rules.installed).active == {}  # installed, not active


def test_looking_tells_what_is_newer_and_installs_nothing(source, root, release, rules):
    (offer,) = look(source, root, rules)
    assert (offer.name, offer.offered, offer.newer) == ("trunk", "9.0.0", True)
    assert read_choice(rules.installed).installed == {}
    update(source, root, rules)
    (offer,) = look(source, root, rules)
    assert (offer.known, offer.newer) == ("9.0.0", False)


def test_looking_at_a_repository_that_is_not_there_is_a_sentence(root, rules, tmp_path):
    with pytest.raises(PackError, match=r"missing|cannot be reached"):
        look(str(tmp_path / "nowhere"), root, rules)


def test_a_new_pack_comes_only_when_it_is_named(source, root, release, rules):
    release("1.0.0", name="torso")
    assert versions(update(source, root, rules)) == ["9.0.0"]
    assert versions(update(source, root, rules, names=["torso"])) == ["1.0.0"]
    with pytest.raises(PackError, match="has no pack gills"):
        update(source, root, rules, names=["gills"])


def test_signing_again_without_packs_keeps_the_list(source, root, release, rules):
    release()
    assert versions(update(source, root, rules)) == ["9.0.0"]


def test_a_stick_continues_what_the_server_began(root, release, rules, repository, tmp_path):
    update(str(repository), root, rules)
    release("9.1.0")
    stick = tmp_path / "stick"
    shutil.copytree(repository, stick)
    assert versions(update(str(stick), root, rules)) == ["9.1.0"]


def test_freeze_expired_lists_are_refused(source, release, rules, tmp_path):
    root = shutil.copy(release("9.0.0", days=1, now=datetime.now(UTC) - timedelta(days=3)), tmp_path / "root.json")
    with pytest.raises(PackError, match="its lists have expired"):
        update(source, Path(root), rules)
    assert read_choice(rules.installed).installed == {}


def test_rollback_older_lists_are_refused(source, root, release, rules, repository, tmp_path):
    shutil.copytree(repository, tmp_path / "yesterday")
    release("9.1.0")
    assert versions(update(source, root, rules)) == ["9.1.0"]
    shutil.copy(tmp_path / "yesterday" / "metadata" / "timestamp.json", repository / "metadata" / "timestamp.json")
    with pytest.raises(PackError, match="older than those it showed before"):
        update(source, root, rules)


@pytest.mark.parametrize("kind", ["targets", "snapshot"])
def test_mix_and_match_lists_of_different_days_are_refused(source, root, release, rules, repository, kind):
    old = one(repository, f"*.{kind}.json").read_bytes()
    release("9.1.0")
    one(repository, f"*.{kind}.json").write_bytes(old)
    with pytest.raises(PackError, match="do not belong together"):
        update(source, root, rules)
    assert read_choice(rules.installed).installed == {}


def test_a_tampered_pack_is_refused(source, root, rules, repository):
    (target,) = repository.glob("targets/*.zip")
    content = bytearray(target.read_bytes())
    content[len(content) // 2] ^= 1
    target.write_bytes(content)
    with pytest.raises(PackError, match="not the one in its signed list"):
        update(source, root, rules)


def test_an_endless_pack_is_refused(source, root, rules, repository):
    (target,) = repository.glob("targets/*.zip")
    with target.open("ab") as stream:
        stream.write(b"x" * (4 << 20))
    with pytest.raises(PackError, match=r"longer than its signed list|not the one in its signed list"):
        update(source, root, rules)


def test_a_tampered_list_is_refused(source, root, rules, repository):
    path = one(repository, "*.targets.json")
    path.write_bytes(path.read_bytes().replace(b"trunk-9.0.0", b"trunk-9.0.1"))
    with pytest.raises(PackError, match="not signed by the keys"):
        update(source, root, rules)


def test_another_repositorys_lists_are_refused(source, root, rules, tmp_path, make_pack):
    other = publish(tmp_path / "other", tmp_path / "other-keys", [], days=14)
    with pytest.raises(PackError, match="not signed by the keys"):
        update(source, other, rules)


def test_the_packs_own_signature_still_counts(source, root, release, rules, tmp_path):
    stranger, _ = make_key(tmp_path / "stranger", "stranger", role=Role.SITE, holder="Stranger", days=30)
    release("9.1.0", key=stranger)
    with pytest.raises(PackError, match="which this box does not trust"):
        update(source, root, rules)


def test_a_lost_target_is_named_by_its_status(source, root, rules, repository):
    for target in repository.glob("targets/*.zip"):
        target.unlink()
    with pytest.raises(PackError, match="status 404"):
        update(source, root, rules)


def test_a_server_that_is_away_is_a_sentence(root, rules):
    with pytest.raises(PackError, match="cannot be reached"):
        update("http://127.0.0.1:9", root, rules)


def test_an_unsigned_pack_is_not_published(repository, tmp_path, make_pack):
    with pytest.raises(PackError, match="sign it before it is published"):
        publish(repository, tmp_path / "keys-r", [make_pack("9.0.0", key=None)], days=14)


def test_the_repositorys_keys_are_private(release, repository, tmp_path):
    release("9.0.0")
    keys = list((tmp_path / "repository-keys").iterdir())
    assert len(keys) == 4
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in keys)
    keys[0].chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        publish(repository, tmp_path / "repository-keys", [], days=14)


def test_lost_keys_are_not_made_anew_for_an_existing_repository(release, repository, tmp_path):
    release("9.0.0")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        publish(repository, tmp_path / "nowhere", [], days=14)


def test_the_root_is_renewed_in_its_last_year_and_boxes_follow(source, release, rules, repository, tmp_path):
    years_ago = datetime.now(UTC) - timedelta(days=900)
    root = Path(shutil.copy(release("9.0.0", now=years_ago), tmp_path / "root.json"))
    release()
    assert (repository / "metadata" / "2.root.json").exists()
    assert versions(update(source, root, rules)) == ["9.0.0"]
    release()
    assert not (repository / "metadata" / "3.root.json").exists()


def test_a_stolen_key_is_replaced_and_worthless(source, root, release, rules, repository, tmp_path):
    keys = tmp_path / "repository-keys"
    for role in ("targets", "snapshot", "timestamp"):
        (keys / f"{role}.private.pem").rename(tmp_path / f"stolen-{role}")
    release("9.1.0")
    assert versions(update(source, root, rules)) == ["9.1.0"]
    thief = tmp_path / "thief"
    thief.mkdir()
    shutil.copy(keys / "root.private.pem", thief)  # only so that publish runs; the old root does not name the new keys
    for role in ("targets", "snapshot", "timestamp"):
        shutil.copy(tmp_path / f"stolen-{role}", thief / f"{role}.private.pem")
    for path in repository.glob("metadata/2.root.json"):
        path.rename(tmp_path / "kept-root.json")
    publish(repository, thief, [], days=14)
    with pytest.raises(PackError, match="not signed by the keys"):
        update(source, root, rules)


def test_another_repositorys_root_key_is_refused(release, repository, tmp_path):
    release("9.0.0")
    publish(tmp_path / "other", tmp_path / "other-keys", [], days=14)
    with pytest.raises(ConfigurationError, match="does not belong to this repository"):
        publish(repository, tmp_path / "other-keys", [], days=14)
