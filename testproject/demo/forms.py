"""The question that the first page asks."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from django import forms

from .surveys import files_below, installed_django

MOST_FILES = 200_000


class CensusForm(forms.Form):
    """Which tree. Any directory of this machine will do: the demo is for its own user alone."""

    path = forms.CharField(label="Directory", max_length=1000, initial=installed_django)

    found: list[Path]
    """The files below the directory, once the form has proved valid."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("label_suffix", "")
        super().__init__(*args, **kwargs)
        self.fields["path"].widget.attrs.update(spellcheck="false", autocomplete="off")

    def clean_path(self) -> str:
        """The directory, absolute; its files are found on the way."""
        try:
            root = Path(self.cleaned_data["path"]).expanduser().resolve()
            is_directory = root.is_dir()
        except (OSError, RuntimeError):  # A name that is too long, a ~user who is not there.
            is_directory = False
        if not is_directory:
            raise forms.ValidationError("There is no such directory on this machine.")
        self.found = list(islice(files_below(root), MOST_FILES + 1))
        if not self.found:
            raise forms.ValidationError("There is no file to survey in that directory.")
        if len(self.found) > MOST_FILES:
            raise forms.ValidationError(f"More than {MOST_FILES:,} files: too many for a demo.")
        return str(root)
