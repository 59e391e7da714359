"""An ordinary boto3 program that has never heard of raptor: `python uploader.py BUCKET PREFIX FILE...`."""

import sys
from pathlib import Path

import boto3

bucket, prefix, *names = sys.argv[1:]
s3 = boto3.client("s3")
for path in map(Path, names):
    with path.open("rb") as body:
        response = s3.put_object(Bucket=bucket, Key=prefix + path.name, Body=body, Metadata={"origin": "uploader"})
    print(prefix + path.name, response["ETag"])
