"""What each mode needs at its start (R1, R3, R5)."""

import json
import re

import pytest

MODES = ["standalone", "platform_raster", "platform_vector", "platform_only", "worker_raster", "worker_vector", "worker_docker"]
POSTGRES = ["POSTGRES_HOST", "POSTGRES_USER", "POSTGRES_DATABASE"]
STORAGE = "DefaultEndpointsProtocol=http;AccountName=bronze;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1:9/bronze;"
BUS = "Endpoint=sb://127.0.0.1:9;SharedAccessKeyName=n;SharedAccessKey=a2V5;UseDevelopmentEmulator=true;"
KEY = "a2V5"


def half(mode):
    """One zone in an account and the other one nowhere; of the database nothing, where the mode needs one by itself."""
    settings = dict(APP_MODE=mode, BRONZE_STORAGE_CONNECTION=STORAGE)
    if mode != "standalone":
        return settings, [*POSTGRES, "SILVER_STORAGE_ACCOUNT"]
    return settings | dict(POSTGRES_HOST="db", POSTGRES_PASSWORD=KEY), ["POSTGRES_USER", "POSTGRES_DATABASE", "SILVER_STORAGE_ACCOUNT"]


# {case: (settings, what the error names)}
WRONG = {
    **{f"{mode}, half of it": half(mode) for mode in MODES},
    # The truth is in the database.
    **{f"{mode}, a broker alone": (dict(APP_MODE=mode, ServiceBusConnection=BUS), POSTGRES) for mode in MODES},
    "a mode that does not exist": (dict(APP_MODE="dokcer"), ["dokcer", *MODES]),
    "a container worker in a function": (dict(APP_MODE="worker_docker", FUNCTIONS_WORKER_RUNTIME="python"), ["FUNCTIONS_WORKER_RUNTIME", *POSTGRES]),
    "two brokers": (
        dict(APP_MODE="platform_only", ServiceBusConnection=BUS, SERVICE_BUS_NAMESPACE="bus"),
        ["ServiceBusConnection", "SERVICE_BUS_NAMESPACE", *POSTGRES],
    ),
    "two accounts for one zone": (
        dict(BRONZE_STORAGE_CONNECTION=STORAGE, BRONZE_STORAGE_ACCOUNT="bronze", SILVER_STORAGE_CONNECTION=STORAGE),
        ["BRONZE_STORAGE_CONNECTION", "BRONZE_STORAGE_ACCOUNT"],
    ),
    "no connection strings": (
        dict(APP_MODE="worker_docker", ServiceBusConnection="nonsense", BRONZE_STORAGE_CONNECTION="nonsense", SILVER_STORAGE_CONNECTION="nonsense"),
        ["ServiceBusConnection", "BRONZE_STORAGE_CONNECTION", "SILVER_STORAGE_CONNECTION", *POSTGRES],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_one_error_names_everything_that_is_missing(make_geoworker, case):
    """R1, R3, R5."""
    settings, named = WRONG[case]
    error = make_geoworker(**settings).json("serve", code=2)["error"]
    assert error["code"] == "CONFIG_INVALID", error
    assert [name for name in named if not re.search(rf"\b{name}\b", error["message"])] == [], error["message"]
    assert KEY not in json.dumps(error)


def test_nothing_set_is_the_embedded_default(make_geoworker):
    shown = make_geoworker().json("config", "show")
    assert shown["mode"] == "standalone" and shown["backends"] == {"database": "sqlite", "queue": "sqlite", "blobs": "folders"}
