"""What holds for every test."""

from hypothesis import HealthCheck, settings

# A generated example is judged by what it shows, not by how long a busy machine took for it: speed is the benchmarks' business.
settings.register_profile("lithograph", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lithograph")
