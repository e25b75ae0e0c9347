"""All classes of reports, whatever is loaded."""

from __future__ import annotations

from edgeshard import reports


def report_classes() -> list[type[reports.Report]]:
    """Return the classes of reports by their names, without the base."""
    values = [getattr(reports, name) for name in dir(reports)]
    classes = [value for value in values if isinstance(value, type) and issubclass(value, reports.Report)]
    return [cls for cls in classes if cls is not reports.Report]
