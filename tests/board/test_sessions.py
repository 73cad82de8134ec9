"""Sessions are random, kept as hashes, end by themselves, and survive a power cut."""

import stat

import pytest

from appliance.board.names import clean_name
from appliance.board.sessions import LONGEST_LIFE_S, MOST_SESSIONS, Sessions


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def sessions(tmp_path, clock):
    return Sessions(tmp_path / "board" / "sessions.json", idle_s=3600, clock=clock)


def test_a_token_opens_its_session_and_no_other_does(sessions):
    token = sessions.open("p")
    assert sessions.find(token, "p") is not None
    assert sessions.find(token[:-1] + ("A" if token[-1] != "A" else "B"), "p") is None
    assert len(token) >= 43


def test_use_prolongs_and_idleness_ends(sessions, clock):
    token = sessions.open("p")
    for _ in range(5):
        clock.now += 3000
        assert sessions.find(token, "p")
    clock.now += 3601
    assert sessions.find(token, "p") is None


def test_it_ends_however_much_it_is_used(sessions, clock):
    token = sessions.open("p")
    sessions.find(token, "p").began_at -= LONGEST_LIFE_S - 10
    assert sessions.find(token, "p")
    clock.now += 11
    assert sessions.find(token, "p") is None


def test_another_password_ends_it(sessions):
    token = sessions.open("p")
    assert sessions.find(token, "q") is None
    assert sessions.find(token, "p") is None


def test_it_survives_a_restart_with_its_name(sessions, tmp_path, clock):
    token = sessions.open("p")
    sessions.rename(sessions.find(token, "p"), "王芳")
    again = Sessions(tmp_path / "board" / "sessions.json", idle_s=3600, clock=clock)
    assert again.find(token, "p").name == "王芳"
    assert again.form_is_ours(token, sessions.form_token(token))


def test_the_file_is_private_and_holds_no_token(sessions, tmp_path):
    token = sessions.open("p")
    file = tmp_path / "board" / "sessions.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert token not in file.read_text()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"key": "zz", "sessions": {}}', b'{"key": "00", "sessions": {"a": 1}}']
)
def test_a_damaged_file_means_that_nobody_is_logged_in(sessions, tmp_path, clock, content):
    token = sessions.open("p")
    (tmp_path / "board" / "sessions.json").write_bytes(content)
    again = Sessions(tmp_path / "board" / "sessions.json", idle_s=3600, clock=clock)
    assert again.find(token, "p") is None
    assert again.find(again.open("p"), "p")


def test_there_are_only_so_many_and_the_one_unused_longest_goes(sessions, clock):
    tokens = []
    for _ in range(MOST_SESSIONS + 1):
        clock.now += 1
        tokens.append(sessions.open("p"))
    assert sessions.find(tokens[0], "p") is None
    assert sessions.find(tokens[1], "p")


def test_a_full_disk_logs_nobody_out(sessions, monkeypatch):
    token = sessions.open("p")

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("appliance.board.sessions.write_durably", full)
    assert sessions.find(sessions.open("p"), "p")
    assert sessions.find(token, "p")


def test_a_form_token_belongs_to_its_cookie(sessions):
    one, two = sessions.open("p"), sessions.open("p")
    assert sessions.form_is_ours(one, sessions.form_token(one))
    assert not sessions.form_is_ours(two, sessions.form_token(one))
    assert not sessions.form_is_ours("", sessions.form_token(""))
    assert not sessions.form_is_ours(one, "é")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("  Li   Wei ", "Li Wei"),
        ("王芳", "王芳"),
        ("a\tb\nc", "a b c"),
        ("\u202egnaF\x00", "gnaF"),
        ("\u200b", ""),
        ("   ", ""),
        ("x" * 65, ""),
        ("O’Brien-Müller", "O’Brien-Müller"),
    ],
)
def test_names_are_cleaned(given, kept):
    assert clean_name(given) == kept
