"""Real workers, and the tasks that they are tried with: an app of its own."""
