"""A lake on S3: data through pyarrow's filesystem, the conditional put and everything about uploads through boto3."""

import contextlib
import datetime as dt
import hashlib
from collections.abc import Iterator
from typing import IO

import boto3
from botocore.exceptions import ClientError

from jobs.lake.s3_filesystem import open_s3
from jobs.lake.storage import StoredFile, changed_since
from schemas.errors import ConfigError, PublishConflictError, StorageError


class S3Storage:
    """A prefix in an S3 bucket. Credentials, region and endpoint come from the usual AWS variables."""

    def __init__(self, *, bucket: str, prefix: str) -> None:
        if not bucket:
            raise ConfigError("the lake's S3 URI names no bucket; expected s3://bucket/prefix")
        self.bucket, self.prefix = bucket, prefix
        self.root = f"s3://{bucket}/{prefix}".rstrip("/")
        self._client = boto3.client("s3")
        self._filesystem = open_s3(self._client.meta.region_name)

    def _key(self, path: str) -> str:
        return f"{self.prefix}/{path}" if self.prefix else path

    def read(self, path: str) -> bytes | None:
        try:
            with self._filesystem.open_input_file(f"{self.bucket}/{self._key(path)}") as file:
                return bytes(file.read())
        except FileNotFoundError:
            return None

    def create(self, path: str) -> IO[bytes]:
        file: IO[bytes] = self._filesystem.open_output_stream(f"{self.bucket}/{self._key(path)}")
        return file

    def replace_if(self, path: str, data: bytes, expected: bytes | None) -> None:
        if self.read(path) != expected:
            raise PublishConflictError(changed_since(f"{self.root}/{path}"))
        # The ETag of a single-part put is the MD5 of its bytes (not a security use): no second look-up, no race.
        condition = (
            {"IfNoneMatch": "*"}
            if expected is None
            else {"IfMatch": f'"{hashlib.md5(expected, usedforsecurity=False).hexdigest()}"'}
        )
        try:
            self._client.put_object(Bucket=self.bucket, Key=self._key(path), Body=data, **condition)  # type: ignore[arg-type]
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in ("PreconditionFailed", "ConditionalRequestConflict"):
                # A put that timed out after it had succeeded is answered so when it is tried again.
                if self.read(path) == data:
                    return
                raise PublishConflictError(changed_since(f"{self.root}/{path}")) from error
            raise StorageError(f"{self.root}/{path}: S3 refused the write ({code}); check bucket and rights") from error

    def delete_folder(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._filesystem.delete_dir(f"{self.bucket}/{self._key(path)}")

    def delete_if(self, path: str, expected: bytes) -> None:
        key = self._key(path)
        try:
            found = self._client.get_object(Bucket=self.bucket, Key=key)
            if found["Body"].read() != expected:
                raise PublishConflictError(changed_since(f"{self.root}/{path}"))
            # Stores that do not know the condition on a delete ignore it; the comparison then narrows the race.
            self._client.delete_object(Bucket=self.bucket, Key=key, IfMatch=found["ETag"])
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in ("NoSuchKey", "404"):
                return
            if code in ("PreconditionFailed", "ConditionalRequestConflict"):
                raise PublishConflictError(changed_since(f"{self.root}/{path}")) from error
            raise StorageError(
                f"{self.root}/{path}: S3 refused the delete ({code}); check bucket and rights"
            ) from error

    def list_files(self, path: str) -> Iterator[StoredFile]:
        start = len(self._key(""))
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._key(path) + "/")
        for page in pages:
            for item in page.get("Contents", []):
                if item["Key"].endswith("/"):  # what pyarrow leaves so that a folder stays when it is empty
                    continue
                yield StoredFile(item["Key"][start:], item["Size"], item["LastModified"].astimezone(dt.UTC))

    def drop_unfinished_uploads(self, before: dt.datetime) -> int:
        # The parts of an upload that was never completed are listed nowhere and billed for ever.
        pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=self._key(""))
        stale = [
            (upload["Key"], upload["UploadId"])
            for page in pages
            for upload in page.get("Uploads", [])
            if upload["Initiated"].astimezone(dt.UTC) < before
        ]
        for key, upload_id in stale:
            self._client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload_id)
        return len(stale)
