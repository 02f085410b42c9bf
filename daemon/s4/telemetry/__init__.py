"""What a process tells of itself while it runs: logs, the audit log, traces."""
