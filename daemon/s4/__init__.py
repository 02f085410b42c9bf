"""S4: S3 object storage on local disks."""

__version__ = "0.8.0"
