"""Client certificates: the box's name comes from them, and a wrong one on either side gets nowhere."""

import shutil
import ssl
import subprocess

from tests.machine import wait_until

from .conftest import Box, Listener

# As on a fleet's broker: a box writes below its own name only; the monitor reads everything.
RULES = "pattern write appliances/%u/#\nuser monitor\ntopic read appliances/#\n"


def secure(broker, authority) -> None:
    certificate, key = authority.issue("broker")
    rules = broker.folder / "rules"
    rules.write_text(RULES)
    rules.chmod(0o600)
    broker.options = (
        f"cafile {authority.certificate}\ncertfile {certificate}\nkeyfile {key}\n"
        f"require_certificate true\nuse_identity_as_username true\ntls_version tlsv1.2\n"
        f"allow_anonymous false\nacl_file {rules}"
    )
    broker.start()


def monitor(broker, authority) -> Listener:
    context = ssl.create_default_context(cafile=authority.certificate)
    context.load_cert_chain(*authority.issue("monitor"))
    return Listener(broker.port, context)


def mqtt(broker, certificate, key, trusted) -> str:
    return (
        f'[health.mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\n'
        f'[health.mqtt.tls]\ncertificate = "{certificate}"\nprivate_key = "{key}"\ntrusted = "{trusted}"\n'
    )


def wait_log(box: Box, event: str) -> None:
    wait_until(lambda: (box.folder / "log.txt").exists() and event in box.log(), event)


def test_the_common_name_is_the_topic(box, broker, authority):
    secure(broker, authority)
    box.mqtt = mqtt(broker, *authority.issue("county-12"), authority.certificate)
    with monitor(broker, authority) as listener:
        box.start()
        wait_until(lambda: listener.of("health"), "health")
        assert {message.topic.split("/")[1] for message in listener.messages} == {"county-12"}


def test_the_last_will_passes_the_access_rules(box, broker, authority):
    secure(broker, authority)
    box.mqtt = mqtt(broker, *authority.issue("county-13"), authority.certificate)
    with monitor(broker, authority) as listener:
        process = box.start()
        listener.wait_state("online")
        process.kill()
        listener.wait_state("offline")


def test_a_certificate_of_another_authority_is_refused_by_the_broker(box, broker, authority, other_authority):
    secure(broker, authority)
    box.mqtt = mqtt(broker, *other_authority.issue("county-14"), authority.certificate)
    with monitor(broker, authority) as listener:
        process = box.start()
        wait_log(box, "broker_refused")
        assert process.poll() is None
        assert not listener.messages


def test_a_broker_of_another_authority_is_refused_by_the_box(box, broker, authority, other_authority):
    secure(broker, authority)
    box.mqtt = mqtt(broker, *authority.issue("county-15"), other_authority.certificate)
    with monitor(broker, authority) as listener:
        box.start()
        wait_log(box, "CERTIFICATE_VERIFY_FAILED")
        assert not listener.messages


def test_a_broker_with_another_name_is_refused_by_the_box(box, broker, authority):
    secure(broker, authority)
    box.mqtt = mqtt(broker, *authority.issue("county-16"), authority.certificate).replace("127.0.0.1", "localhost")
    certificate, key = authority.issue("broker", names="DNS:elsewhere.example")
    broker.stop()
    shutil.copy(certificate, broker.folder / "elsewhere.crt")
    broker.options = broker.options.replace("certfile", f"certfile {certificate}\n#")
    broker.options = broker.options.replace("keyfile", f"keyfile {key}\n#")
    broker.start()
    box.start()
    wait_log(box, "CERTIFICATE_VERIFY_FAILED")


def test_a_key_that_others_may_read_ends_the_service_with_a_sentence(box, broker, authority):
    certificate, key = authority.issue("county-17")
    key.chmod(0o644)
    box.mqtt = mqtt(broker, certificate, key, authority.certificate)
    assert box.start().wait(60) == 2
    assert "chmod 600" in box.log()


def test_plain_connections_are_refused_unless_allowed(box, broker):
    box.mqtt = f'[health.mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\n'
    assert box.start().wait(60) == 2
    assert "allow_plaintext" in box.log()


def test_a_password_is_used(box, broker, authority):
    rules = broker.folder / "passwords"
    mosquitto_passwd = shutil.which("mosquitto_passwd")
    assert mosquitto_passwd is not None
    rules.touch(0o600)
    subprocess.run([mosquitto_passwd, "-b", str(rules), "box", "correct horse"], check=True, capture_output=True)
    secret = box.folder / "secret"
    secret.touch(0o600)
    secret.write_text("correct horse\n")
    broker.options = f"allow_anonymous false\npassword_file {rules}"
    broker.start()
    box.mqtt += f'username = "box"\npassword_file = "{secret}"\n'
    box.start()
    wait_log(box, "broker_connected")


def test_a_wrong_password_is_told_once_and_tried_again(box, broker):
    broker.options = "allow_anonymous false"
    broker.start()
    process = box.start()
    wait_log(box, "broker_refused")
    assert process.poll() is None
