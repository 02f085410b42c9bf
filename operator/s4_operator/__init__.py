"""The Kubernetes operator of S4: makes clusters and buckets out of S4Cluster and Bucket resources."""
