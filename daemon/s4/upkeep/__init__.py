"""Background work: compaction, orphans, expiry, verification, renames of prefixes."""
