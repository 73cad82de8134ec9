"""The fleet's broker as configured: how to reach it, how to prove who this box is, and under which name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.errors import ConfigurationError
from appliance.health import certificate
from appliance.secret_files import read_secret
from appliance.tls import client_context

if TYPE_CHECKING:
    import ssl

    from appliance.config import MqttSettings


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
        return None if self.settings.tls is None else client_context(self.settings.tls, compare_host_name=True)
