"""The event loop and the process underneath: tasks, timers, turns of the loop, forks and the life of a manager."""
