"""Nothing is served, and nothing is open, by mistake."""

import pytest

from appliance.config import Settings, load
from appliance.errors import ConfigurationError

TLS = '[board.tls]\ncertificate = "a"\nprivate_key = "b"\n'


def test_there_is_no_board_unless_it_is_configured():
    assert Settings().board is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[board]\n", "anybody could read the board"),
        ('[board]\naddress = "10.1.2.3"\npassword_file = "p"\n', "without encryption on 10.1.2.3"),
        ('[board]\naddress = "0.0.0.0"\npassword_file = "p"\n', "without encryption"),
        ('[board]\naddress = "scanner-pc"\npassword_file = "p"\n', "not an IP address"),
        ("[board]\n" + TLS, "anybody could read the board"),
        ('[board]\npassword_file = "p"\nlanguage = "fr"\n', "language"),
        ('[board]\npassword_file = "p"\npepole = []\n', "there is no such key"),
    ],
)
def test_refuses(tmp_path, text, why):
    file = tmp_path / "box.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=why):
        load(file)


@pytest.mark.parametrize(
    "text",
    [
        '[board]\npassword_file = "p"\n',
        '[board]\naddress = "::1"\npassword_file = "p"\n',
        '[board]\naddress = "10.1.2.3"\npassword_file = "p"\nallow_plaintext = true\n',
        '[board]\naddress = "10.1.2.3"\npassword_file = "p"\n' + TLS,
        '[board]\naddress = "10.1.2.3"\n' + TLS + 'trusted = "c"\n',
    ],
)
def test_takes(tmp_path, text):
    file = tmp_path / "box.toml"
    file.write_text(text)
    assert load(file).board is not None
