"""The fleet's broker as configured: how to reach it, how to prove who this box is, and under which name."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.errors import ConfigurationError
from appliance.health import certificate
from appliance.health.secret_files import read_secret, require_private

if TYPE_CHECKING:
    from appliance.config import MqttSettings, TlsSettings


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker that may be connected to.

    Attributes
    ----------
    settings
        Address and credentials.
    box
        Name of this box in the topics: the certificate's common name, or the configured name without TLS.
    """

    settings: MqttSettings
    box: str

    @classmethod
    def from_settings(cls, settings: MqttSettings, configured_name: str) -> Broker:
        """Check everything that can be checked without the broker.

        Raises
        ------
        ConfigurationError
            TLS is absent and plain connections are not allowed, or a file is missing, damaged or not private.
        """
        if settings.tls is None:
            if not settings.allow_plaintext:
                raise ConfigurationError(
                    "health.mqtt: there is no [health.mqtt.tls], and plain connections are refused; give the box "
                    "a client certificate, or set health.mqtt.allow_plaintext = true for a broker on this machine"
                )
            box = configured_name
        else:
            box = certificate.read(settings.tls.certificate).common_name
        broker = cls(settings, box)
        broker.tls_context()
        broker.password()
        return broker

    def topic(self, leaf: str) -> str:
        """Return ``appliances/<box>/<leaf>``."""
        return f"appliances/{self.box}/{leaf}"

    def password(self) -> str | None:
        """Read the password, for each connection again, so that a changed one is taken up."""
        if self.settings.password_file is None:
            return None
        return read_secret(self.settings.password_file)

    def tls_context(self) -> ssl.SSLContext | None:
        """Load the certificates, for each connection again, so that renewed ones are taken up."""
        return None if self.settings.tls is None else _context(self.settings.tls)


def _context(tls: TlsSettings) -> ssl.SSLContext:
    require_private(tls.private_key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(tls.trusted)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"{tls.trusted}: the trusted certificates cannot be read: {error}") from error
    try:
        context.load_cert_chain(tls.certificate, tls.private_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"{tls.certificate} and {tls.private_key} do not make a certificate with its key: {error}"
        ) from error
    return context
