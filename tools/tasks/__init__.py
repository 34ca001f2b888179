"""The paper's tasks, on small models of our own: the figures of docs/tasks.md."""
