"""Where archives and exports lie: a folder, or a bucket of S3, Google Cloud Storage or Azure."""
