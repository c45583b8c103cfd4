"""The same work on other task queues, beside ours."""
