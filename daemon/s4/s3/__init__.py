"""The S3 protocol as pure functions: signatures, chunked bodies, checksums, ranges, XML, names, tags, ACLs."""
