import pytest

from appliance.errors import ConfigurationError
from appliance.secret_files import read_secret


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_text("hidden\nrest\n")
    path.chmod(0o600)
    return path


def test_reads_the_first_line(secret):
    assert read_secret(secret) == "hidden"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_refuses_what_others_may_read(secret, mode):
    secret.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        read_secret(secret)


def test_takes_a_systemd_credential_as_it_is(secret, monkeypatch):
    secret.chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(secret.parent))
    assert read_secret(secret) == "hidden"


def test_refuses_an_empty_secret(secret):
    secret.write_text("\n")
    with pytest.raises(ConfigurationError, match="empty"):
        read_secret(secret)


def test_names_a_missing_file(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_secret(tmp_path / "absent")
