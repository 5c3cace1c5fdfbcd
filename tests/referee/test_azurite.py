"""The private blob server: what it acknowledged is there after a restart, and its accounts are apart."""

import pytest
from azure.core.exceptions import AzureError, ResourceNotFoundError
from azure.storage.blob import BlobServiceClient, LinearRetry

from azurite import Azurite, BLOCK_BYTES, installed
from http_fault_proxy import HttpFaultProxy, HttpFaults

pytestmark = pytest.mark.skipif(not installed(), reason="SKIPPED: Azurite is not installed (tools/install-azurite)")
LARGE = b"0123456789abcdef" * (BLOCK_BYTES // 16 + 1000)


@pytest.fixture(scope="module")
def azurite():
    with Azurite() as server:
        yield server


def test_blobs_outlive_a_restart(azurite):
    azurite.put("bronze", "scenes", "folder/scene.tif", LARGE)
    port = azurite.port
    azurite.restart()
    assert azurite.port == port
    assert azurite.read("bronze", "scenes", "folder/scene.tif") == LARGE
    assert list(azurite.blobs("bronze")) == ["scenes/folder/scene.tif"]
    with azurite.service("bronze") as service, service.get_blob_client("scenes", "folder/scene.tif") as blob:
        assert len(blob.get_block_list()[0]) == 2, "what is large goes in blocks"


def test_accounts_are_apart(azurite):
    azurite.put("silver", "out", "a.json", b"{}")
    assert list(azurite.blobs("silver")) == ["out/a.json"]
    with pytest.raises(ResourceNotFoundError):
        azurite.read("bronze", "out", "a.json")
    foreign = azurite.connection_string("silver").replace(azurite.keys["silver"], azurite.keys["bronze"])
    with pytest.raises(AzureError, match="authenticate"), BlobServiceClient.from_connection_string(foreign) as service:
        list(service.list_containers())


def test_blocks_without_a_list_are_no_blob(azurite):
    azurite.create_container("silver", "parts")
    with azurite.service("silver") as service, service.get_blob_client("parts", "half.tif") as blob:
        blob.stage_block("MDAwMQ==", b"x" * 100)
    assert "parts/half.tif" not in azurite.blobs("silver")
    assert azurite.uncommitted("silver") == ["parts/half.tif"]


def test_behind_a_proxy_with_faults_the_client_still_gets_through(azurite):
    faults = HttpFaults(unavailable=0.2, error=0.1, reset=0.1, lost_answer=0.05)
    with HttpFaultProxy(azurite.port, seed=3, faults=faults) as proxy:
        direct = azurite.connection_string("bronze", proxy.port)
        often = dict(retry_total=9, retry_connect=9, retry_read=9, retry_status=9)
        small = dict(max_single_put_size=1 << 20, max_block_size=1 << 20, max_single_get_size=1 << 20, max_chunk_get_size=1 << 20)
        with BlobServiceClient.from_connection_string(direct, **small, retry_policy=LinearRetry(backoff=0, random_jitter_range=0, **often)) as service:
            with service.get_blob_client("scenes", "harmed.tif") as blob:
                blob.upload_blob(LARGE, overwrite=True)
                assert blob.download_blob().readall() == LARGE
        assert proxy.counts["unavailable"] and proxy.counts["reset"]
    assert azurite.read("bronze", "scenes", "harmed.tif") == LARGE

