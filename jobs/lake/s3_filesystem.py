"""pyarrow's filesystem for S3, as the lake and the files of a source on S3 open it."""

import os

from pyarrow import fs


def open_s3(region: str | None = None) -> fs.S3FileSystem:
    """Open S3 with the credentials, region and endpoint of the usual AWS variables.

    Arrow reads all of these variables but the endpoint. `region`: where they say it in another way (a profile's file).
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return fs.S3FileSystem(endpoint_override=endpoint, region=region)
