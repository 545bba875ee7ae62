"""Puts or gets one object for scripts/bench: python s3-object.py put|get URL KEY SECRET PATH NAME (bucket: bench)."""
import sys

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

verb, url, key, secret, path, name = sys.argv[1:]
store = boto3.client(
    "s3",
    endpoint_url=url,
    region_name="garage",
    aws_access_key_id=key,
    aws_secret_access_key=secret,
    config=Config(retries={"max_attempts": 1}, read_timeout=60),
)
parts = TransferConfig(multipart_threshold=16 << 20, multipart_chunksize=16 << 20, max_concurrency=4)
if verb == "put":
    store.upload_file(path, "bench", name, Config=parts)
else:
    store.download_file("bench", name, path, Config=parts)
