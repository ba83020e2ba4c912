"""What every test shares."""

from hypothesis import HealthCheck, settings

# A busy machine is slow now and then; that is not what these tests are about.
settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")
