"""The census as task sets see it: one subtask for each file, and a callback for either end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from django.utils import timezone

from django_tasksets import TaskSetResult, task

from .models import Census
from .reports import build_report
from .surveys import FileSurvey, survey


@task
def survey_file(path: str) -> FileSurvey:
    """Learn what there is to learn about one file."""
    return survey(Path(path))


@task
def publish_report(surveys: Sequence[FileSurvey], census_pk: int) -> str:
    """Called once, when every file has been surveyed: add it all up."""
    census = Census.objects.get(pk=census_pk)
    census.report = build_report(Path(census.path), surveys)
    census.status = Census.Status.PUBLISHED
    census.finished_at = timezone.now()
    census.save(update_fields=["report", "status", "finished_at"])
    return f"{len(surveys):,} files surveyed"


@task
def give_up(result: TaskSetResult, census_pk: int) -> str:
    """Called once, when all is done but some file could not be surveyed."""
    missing = result.progress().total - result.progress().successful
    Census.objects.filter(pk=census_pk).update(
        status=Census.Status.FAILED, finished_at=timezone.now()
    )
    return f"{missing:,} files could not be surveyed"
