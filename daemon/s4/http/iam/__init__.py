"""IAM and STS: the query protocol of AWS on the S3 port. `protocol` reads and answers, one file for each kind of
thing."""
