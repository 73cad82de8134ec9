from datetime import UTC, datetime, timedelta

import pytest

from appliance.errors import ConfigurationError
from appliance.health.certificate import read


def test_reads_the_subjects_common_name_not_the_issuers(authority):
    certificate, _ = authority.issue("box-1.example")
    assert read(certificate).common_name == "box-1.example"


def test_reads_the_last_day(authority):
    certificate, _ = authority.issue("box-2")
    days = (read(certificate).not_after - datetime.now(UTC)) / timedelta(days=1)
    assert days == pytest.approx(20, abs=0.1)


def test_a_chain_means_its_first_certificate(authority, tmp_path):
    certificate, _ = authority.issue("box-3")
    chain = tmp_path / "chain.pem"
    chain.write_text(certificate.read_text() + authority.certificate.read_text())
    assert read(chain).common_name == "box-3"


@pytest.mark.parametrize("name", ["a/b", "box*", "box #1"])
def test_refuses_a_name_that_cannot_be_a_topic(authority, name):
    certificate, _ = authority.issue(name)
    with pytest.raises(ConfigurationError, match="cannot name a box"):
        read(certificate)


def test_refuses_what_is_no_certificate(tmp_path):
    path = tmp_path / "nothing.pem"
    path.write_text("nothing")
    with pytest.raises(ConfigurationError, match="not a certificate"):
        read(path)


def test_refuses_a_damaged_certificate(authority, tmp_path):
    certificate, _ = authority.issue("box-4")
    lines = certificate.read_text().splitlines()
    path = tmp_path / "damaged.pem"
    path.write_text("\n".join([lines[0], *lines[2:]]))
    with pytest.raises(ConfigurationError, match=r"damaged|cannot name"):
        read(path)


def test_names_a_missing_file(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read(tmp_path / "absent.pem")
