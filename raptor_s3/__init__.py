"""raptor-s3: small S3 uploads in one round trip."""
