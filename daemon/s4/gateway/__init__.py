"""The verbs of S3 over nodes: values in, values out. HTTP is above, stores are below."""
