"""The demo's pages: ask for a directory, start the census, show how far it is, show the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from django_tasksets import TaskSet

from .charts import bar_chart
from .forms import CensusForm
from .models import Census
from .tasks import give_up, publish_report, survey_file

# Nothing inline, nothing from elsewhere: what a strict site would demand of these pages.
POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
EARLIER_SHOWN = 10


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def index(request: HttpRequest) -> HttpResponse:
    """Ask for a directory; on POST, start its census and lead to its page."""
    form = CensusForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        user = request.user if request.user.is_authenticated else None
        return redirect(start_census(form.cleaned_data["path"], form.found, user))
    earlier = Census.objects.defer("report")[:EARLIER_SHOWN]
    return _page(request, "demo/index.html", {"form": form, "censuses": earlier})


@transaction.atomic
def start_census(root: str, files: Sequence[Path], user: AbstractBaseUser | None) -> Census:
    """One subtask for each file, and a callback for either end.

    All in one transaction: no worker sees a subtask before the census knows its task set.
    """
    census = Census.objects.create(path=root)
    result = TaskSet(
        (survey_file.subtask((str(path),)) for path in files),
        on_success=publish_report.subtask((census.pk,)),
        on_failure=give_up.subtask((census.pk,)),
        name=f"Census of {Path(root).name}",
        owner=user,
        related=census,
    ).apply_async()
    census.taskset_id = result.taskset_id
    census.save(update_fields=["taskset_id"])
    return census


@never_cache
@require_safe
def census(request: HttpRequest, pk: int) -> HttpResponse:
    """The bar while files are being surveyed, the report from then on."""
    census = get_object_or_404(Census, pk=pk)
    context = {"census": census, "progress": census.taskset.progress()}
    if census.report is not None:
        context["chart"] = bar_chart(census.report["kinds"])
    return _page(request, "demo/census.html", context)


@never_cache
@require_safe
def progress(_request: HttpRequest, pk: int) -> JsonResponse:
    """How far it is, for the bar on the page and the one in the terminal."""
    census = get_object_or_404(Census, pk=pk)
    now = census.taskset.progress()
    return JsonResponse(
        {
            "status": census.status,
            "total": now.total,
            "finished": now.finished,
            "failed": now.failed,
            "percent": now.percent,
            "rate": round(now.rate),
            "eta": None if now.eta is None else round(now.eta.total_seconds()),
            "seconds": round(census.took.total_seconds(), 1),
            "report": census.report,
        }
    )


def _page(request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
    response = render(request, template, context)
    response["Content-Security-Policy"] = POLICY
    return response
