"""What everything may use, and what uses nothing else of S4: clocks, tasks, background jobs, health, words for
people."""
