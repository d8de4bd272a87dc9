"""A whole night with the lake on S3, over HTTP, Spark's workers included: the same bytes as on a folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from e2e.test_three_days import DAYS, FIRST_DAY
from moto.server import ThreadedMotoServer
from rehearsal_fixture import serve

from jobs import make_demo_shop

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.e2e, pytest.mark.spark]


@pytest.fixture
def endpoint(monkeypatch):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": str(ROOT),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="shop")
    yield
    server.stop()


def test_a_night_on_s3_gives_the_bytes_of_a_night_on_a_folder(tmp_path, endpoint):
    shop = tmp_path / "shop.db"
    make_demo_shop.main(
        path=shop, parquet=None, users=600, items=None, seed=7, first_date=FIRST_DAY, last_date=DAYS[0], days=1,
        workers=1, image_base_url="http://127.0.0.1:8085/images",
    )  # fmt: skip
    # One provider each: to a ledger that knows of no send, a provider that has the send already says it was lost.
    with serve(tmp_path / "folder.sqlite") as one, serve(tmp_path / "s3.sqlite") as other:
        assert one.api_key == other.api_key
        script = str(ROOT / "tests/e2e/lake_on_s3.py")
        done = subprocess.run(
            [sys.executable, script, str(shop), str(tmp_path), "shop", one.host, other.host],
            input=one.api_key, capture_output=True, text=True, timeout=500, env=os.environ, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert len(found["s3"]) >= 12
    assert [name for name, content in found["s3"].items() if content != found["folder"].get(name)] == []
    assert set(found["s3"]) == set(found["folder"])
    stored = boto3.client("s3").list_objects_v2(Bucket="shop", Prefix="nights/lake/recommendations/")
    assert stored["KeyCount"] >= 5
