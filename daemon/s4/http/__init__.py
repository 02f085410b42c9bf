"""HTTP: the S3 endpoint and the admin endpoint. The only place that knows aiohttp."""
