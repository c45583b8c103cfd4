"""A set on django-tasks-db, counted by hand: what its users write who need a callback."""
