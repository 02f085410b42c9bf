"""HTTP: the S3 endpoint and the admin endpoint. The only place that serves by aiohttp; clients elsewhere use it too."""
