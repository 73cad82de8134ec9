"""What all tests share: Hypothesis judges what is computed, not how quick a busy machine is today."""

from hypothesis import HealthCheck, settings

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
