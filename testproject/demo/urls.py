"""The demo's pages."""

from __future__ import annotations

from django.urls import path

from . import views

app_name = "demo"
urlpatterns = [
    path("", views.index, name="index"),
    path("census/<int:pk>/", views.census, name="census"),
    path("census/<int:pk>/progress.json", views.progress, name="progress"),
]
