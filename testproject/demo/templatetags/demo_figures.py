"""The figures as template filters."""

from __future__ import annotations

import datetime

from django import template

from ..figures import size, thousands

register = template.Library()
register.filter(thousands)
register.filter(size)


@register.filter
def seconds(span: datetime.timedelta) -> str:
    """A time span in seconds, to the tenth."""
    return f"{span.total_seconds():.1f} s"
