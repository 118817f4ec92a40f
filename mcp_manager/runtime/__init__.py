"""The event loop and the process: tasks, timers, the read budget, forks and the phases of a manager's life."""
