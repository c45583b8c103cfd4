"""What `runtaskworker` runs: a supervisor, a heart, and processes that execute subtasks."""
