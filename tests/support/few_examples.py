"""Settings of hypothesis for tests whose examples are expensive."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


FEW = settings(max_examples=15, deadline=None, suppress_health_check=QUIET)
