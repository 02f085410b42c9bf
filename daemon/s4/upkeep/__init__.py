"""Background work: heals, fills, scrubs, verification, compaction, the auditor of orphans, lifecycle, outboxes,
renames."""
