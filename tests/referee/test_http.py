"""The job API, probes and metrics (R24, B9), asked with nothing but the standard library; answers are judged by the document."""

import contextlib
import http.client
import json
import re
import signal
import socket

import jsonschema
import pytest

from conftest import ROOT
from helpers import FAST, until
from test_durability import encoding, slow, submit_slow  # noqa: F401  (slow is a fixture)

BODY_BYTES = 1 << 20


class Answer:
    def __init__(self, response):
        self.status, self.headers, self.text = response.status, response.headers, response.read().decode()

    @property
    def json(self):
        return json.loads(self.text)

    def problem(self, status, code):
        """Checks that this is a problem document of RFC 9457 and answers it."""
        assert (self.status, self.headers["content-type"]) == (status, "application/problem+json"), self.text
        problem = self.json
        assert (problem["status"], problem["code"]) == (status, code), problem
        assert problem["type"] == f"urn:geoworker:problem:{code}" and problem["title"] and problem["detail"]
        return problem


class Client:
    """One request after the other, each on a connection of its own."""

    def __init__(self, address, **headers):
        self.address, self.headers = address, headers

    def ask(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection(self.address, timeout=40)
        headers = {name.replace("_", "-"): value for name, value in (self.headers | headers).items()}
        if body is not None and not isinstance(body, bytes):
            body, headers = json.dumps(body).encode(), {"Content-Type": "application/json"} | headers
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            return Answer(connection.getresponse())

    def get(self, path, status=200, **headers):
        answer = self.ask("GET", path, **headers)
        assert answer.status == status, f"{path}: {answer.status} {answer.text}"
        return answer

    def post(self, path, body=None, **headers):
        return self.ask("POST", path, body, **headers)

    def submit(self, job_type, query="", **parameters):
        answer = self.post(f"/api/jobs/submit/{job_type}{query}", parameters)
        assert answer.status in (200, 202), answer.text
        return answer.json

    def finished(self, job):
        def over():
            shown = self.get(f"/api/jobs/{job}").json
            return shown if shown["ended_at"] else None

        return until(over, what=f"the end of {job}")


def client_of(geoworker, **headers):
    """A client of a new server that can claim and run tasks."""
    geoworker.serve()
    client = Client(geoworker.http(), **headers)
    until(lambda: client.ask("GET", "/readyz").status == 200, what="readiness")
    return client


@pytest.fixture
def client(make_geoworker):
    return client_of(make_geoworker(**FAST))


def test_a_job_from_submission_to_result(client):
    answer = client.post("/api/jobs/submit/hello_world", {"n": 3}, X_Correlation_Id="trace-1")
    assert answer.status == 202 and answer.json["existing"] is False
    job = answer.json["job_id"]
    assert answer.headers["location"] == answer.json["links"]["job"] == f"/api/jobs/{job}"
    shown = client.finished(job)
    assert (shown["state"], shown["correlation_id"], shown["result"]["greetings"]) == ("completed", "trace-1", 3)
    assert [(stage["total"], stage["remaining"]) for stage in shown["stages"]] == [(3, 0), (3, 0)]
    assert client.get(f"/api/jobs/{job[:12]}").json["job_id"] == job, "the first digits are enough"
    tasks = client.get(answer.json["links"]["tasks"]).json["tasks"]
    assert len(tasks) == 6 and {task["state"] for task in tasks} == {"completed"}
    kinds = [event["kind"] for event in client.get(answer.json["links"]["events"]).json["events"]]
    assert kinds[0] == "job_submitted" and kinds[-1] == "job_ended"
    one = client.get(f"/api/tasks/{tasks[0]['task_id']}").json
    assert one["unit"] == tasks[0]["unit"] and {event["task_id"] for event in one["events"]} == {one["task_id"]}

    again = client.post("/api/jobs/submit/hello_world", {"n": 3})
    assert (again.status, again.json["job_id"], again.json["existing"]) == (200, job, True)
    forced = client.submit("hello_world", "?force=true", n=3)["job_id"]
    assert client.finished(forced)["previous_run"] == job
    rerun = client.post(f"/api/jobs/{forced}/rerun")
    assert rerun.status == 202 and client.finished(rerun.json["job_id"])["run_ordinal"] == 3
    client.post(f"/api/jobs/{job}/cancel").problem(409, "JOB_OVER")
    client.post(f"/api/jobs/{job}/retry").problem(409, "TASK_NOT_FAILED")
    client.post(f"/api/tasks/{tasks[0]['task_id']}/cancel").problem(409, "TASK_OVER")


def test_failed_tasks_are_retried_in_a_new_run(make_geoworker):
    geoworker = make_geoworker(**FAST)
    name = geoworker.put(ROOT / "README.md", "scene.tif")
    client = client_of(geoworker)
    job = client.submit("process_raster", container_name="in", blob_name=name)["job_id"]
    failed = client.get(f"/api/jobs/{client.finished(job)['job_id']}/tasks?state=failed").json["tasks"]
    assert failed[0]["error"]["code"] == "FILE_UNREADABLE"
    for path in (f"/api/jobs/{job}/retry", f"/api/tasks/{failed[0]['task_id']}/retry"):
        answer = client.post(path)
        assert answer.status == 202, answer.text
        assert client.finished(answer.json["job_id"])["previous_run"]


def test_lists_come_in_pages(client):
    jobs = {client.submit("hello_world", n=n)["job_id"] for n in (1, 2, 3)}
    for job in jobs:
        client.finished(job)
    seen, after = [], ""
    while True:
        page = client.get(f"/api/jobs?limit=2&state=completed{after}").json
        seen += [job["job_id"] for job in page["jobs"]]
        if not page["next"]:
            break
        after = f"&after={page['next']}"
    assert len(seen) == 3 and set(seen) == jobs
    assert client.get("/api/jobs?state=failed").json == {"jobs": [], "next": None}
    job = next(iter(jobs))
    first = client.get(f"/api/jobs/{job}/tasks?limit=1").json
    rest = client.get(f"/api/jobs/{job}/tasks?after={first['next']}").json
    assert rest["next"] is None and first["tasks"][0]["task_id"] not in {task["task_id"] for task in rest["tasks"]}


def test_a_job_that_waits_says_why_and_can_be_cancelled(make_geoworker, postgres):
    geoworker = make_geoworker(APP_MODE="platform_only", **FAST, **postgres)
    client = client_of(geoworker)
    job = client.submit("hello_world", n=2)["job_id"]
    waits = until(lambda: (shown := client.get(f"/api/jobs/{job}").json)["stages"] and shown["waiting"])
    assert "none serves" in waits, waits
    assert client.get(f"/api/jobs/{job}/tasks").json["tasks"][0]["waiting"]
    client.post(f"/api/jobs/{job}/retry").problem(409, "JOB_RUNNING")
    assert client.post(f"/api/jobs/{job}/cancel").status == 202
    assert client.finished(job)["state"] == "cancelled"


def test_what_is_wrong_is_a_problem_document(client):
    submit = "/api/jobs/submit/hello_world"
    problem = client.post(submit, {"n": "three", "m": 1}).problem(422, "PARAM_INVALID")
    assert "hint" in problem and "m" in problem["detail"]
    client.post("/api/jobs/submit/nothing", {}).problem(404, "JOB_TYPE_UNKNOWN")
    raster = {"container_name": "in", "blob_name": "missing.tif"}
    client.post("/api/jobs/submit/process_raster", raster).problem(422, "BLOB_NOT_FOUND")
    client.post(submit, b"{", Content_Type="application/json").problem(400, "HTTP_REQUEST_INVALID")
    client.post(submit, [1]).problem(400, "HTTP_REQUEST_INVALID")
    client.post(submit, b"n=3", Content_Type="application/x-www-form-urlencoded").problem(415, "HTTP_REQUEST_INVALID")
    client.post(submit, {}, X_Correlation_Id="x" * 17).problem(400, "HTTP_REQUEST_INVALID")
    client.post(submit, b" " * (BODY_BYTES + 1), Content_Type="application/json").problem(413, "HTTP_BODY_TOO_LARGE")
    for path in ("/api/jobs?stat=failed", "/api/jobs?state=over", "/api/jobs?limit=0", "/api/jobs?after=x"):
        client.get(path, 400).problem(400, "HTTP_REQUEST_INVALID")
    assert "stat" in client.get("/api/jobs?stat=failed", 400).json["detail"]
    client.get("/api/jobs/ffff", 404).problem(404, "JOB_NOT_FOUND")
    client.get("/api/tasks/ffff", 404).problem(404, "TASK_NOT_FOUND")
    client.get("/api/nothing", 404).problem(404, "HTTP_ROUTE_UNKNOWN")
    answer = client.ask("DELETE", "/api/jobs")
    answer.problem(405, "HTTP_METHOD")
    assert "GET" in answer.headers["allow"]


def test_the_token_is_wanted_and_never_shown(make_geoworker):
    settings = FAST | {"GEOWORKER_API_TOKEN": "hunter2hunter2"}
    geoworker = make_geoworker(**settings)
    client = client_of(geoworker)
    assert client.get("/api/jobs", 401).headers["www-authenticate"] == "Bearer"
    for wrong in ("Bearer hunter2", "Bearer", "Basic hunter2hunter2", "hunter2hunter2"):
        client.get("/api/jobs", 401, Authorization=wrong).problem(401, "HTTP_UNAUTHORIZED")
    client.get("/api/jobs", Authorization="Bearer hunter2hunter2")
    client.get("/api/jobs", Authorization="bearer hunter2hunter2", Host="jobs.example")
    client.get("/readyz")
    assert "hunter2" not in geoworker.run("config", "show") + (geoworker.folder / "server.log").read_text()


def test_beyond_loopback_there_is_no_job_api_without_a_token(make_geoworker):
    error = make_geoworker(GEOWORKER_HTTP="0.0.0.0:0").json("serve", code=2)["error"]
    assert error["code"] == "CONFIG_INVALID" and "GEOWORKER_API_TOKEN" in error["message"]


def test_a_web_page_of_elsewhere_cannot_use_the_loopback_server(client):
    client.get("/api/jobs", 403, Host="rebound.example:80").problem(403, "HTTP_FORBIDDEN")
    client.post("/api/jobs/ffff/cancel", Origin="https://evil.example").problem(403, "HTTP_FORBIDDEN")
    client.post("/api/jobs/ffff/cancel", Origin="null").problem(403, "HTTP_FORBIDDEN")
    client.get("/api/jobs", Host="localhost", Origin="http://localhost:3000")


def test_the_rate_is_limited_and_probes_are_not(make_geoworker):
    client = client_of(make_geoworker(**FAST, GEOWORKER_HTTP_RATE="1/3"))
    answers = [client.ask("GET", "/api/limits") for _ in range(6)]
    assert [answer.status for answer in answers][:3] == [200] * 3
    refused = answers[-1]
    refused.problem(429, "HTTP_RATE_LIMITED")
    assert int(refused.headers["retry-after"]) >= 1
    for _ in range(10):
        client.get("/livez")
    assert answers[0].json["requests_burst"] == 3


def test_a_slow_client_is_let_go(client):
    host, port = client.address.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        assert b"200 OK" not in connection.recv(1000), "the head was never finished"


def test_the_document_tells_what_the_server_does(client):
    """Every documented address answers as documented, and takes no other method."""
    document = client.get("/api/openapi.json").json
    assert document["openapi"].startswith("3.1")
    job = client.submit("hello_world", n=1)["job_id"]
    client.finished(job)
    task = client.get(f"/api/jobs/{job}/tasks").json["tasks"][0]["task_id"]
    values = {"job_type": "hello_world", "name": "hello_world"}
    methods = {"GET", "POST", "PUT", "PATCH", "DELETE"}
    judged = 0
    for path, item in document["paths"].items():
        ids = values | {"id": task if path.startswith("/api/tasks") else job}
        address = re.sub(r"\{(\w+)\}", lambda found: ids[found[1]], path)
        documented = {method.upper() for method in item} & methods
        for method in methods - documented:
            client.ask(method, address).problem(405, "HTTP_METHOD")
        for method in documented:
            answer = client.ask(method, address)
            responses = item[method.lower()]["responses"]
            assert str(answer.status) in responses, f"{method} {path}: {answer.status} is not documented"
            ((media, content),) = responses[str(answer.status)]["content"].items()
            assert answer.headers["content-type"].split(";")[0] == media
            if "json" in media:
                schema = content["schema"] | {"components": document["components"]}
                jsonschema.Draft202012Validator(schema).validate(answer.json)
                judged += 1
    assert judged >= 19


def test_types_come_with_their_schemas(client):
    (hello,) = [entry for entry in client.get("/api/job-types").json["job_types"] if entry["name"] == "hello_world"]
    assert client.get("/api/job-types/hello_world").json == hello
    jsonschema.Draft202012Validator.check_schema(hello["parameters"])
    assert hello["parameters"]["properties"]["n"]
    for task_type in client.get("/api/task-types").json["task_types"]:
        jsonschema.Draft202012Validator.check_schema(task_type["parameters"])
        jsonschema.Draft202012Validator.check_schema(task_type["result"])
    assert client.get("/api/limits").json["plugins"]["cpu_ms"] > 0
    (worker,) = client.get("/api/workers").json["workers"]
    assert worker["mode"] == "standalone"


def test_metrics_count(client):
    client.finished(client.submit("hello_world", n=3)["job_id"])
    client.get("/api/nothing", 404)
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = {}
    for line in answer.text.splitlines():
        if not line.startswith("#"):
            name, labels, value = re.fullmatch(r'([a-z_]+)(?:\{(.*)\})? (\S+)', line).groups()
            samples[name, frozenset(re.findall(r'(\w+)="([^"]*)"', labels or ""))] = float(value)
    ended = {labels: count for (name, labels), count in samples.items() if name == "geoworker_attempts_ended_total"}
    assert sum(ended.values()) == 6 and all(("outcome", "completed") in labels for labels in ended)
    assert samples["geoworker_attempts_running", frozenset()] == 0
    assert samples["geoworker_leases_lost_total", frozenset()] == 0
    missed = {("method", "GET"), ("route", "other"), ("status", "404")}
    assert samples["geoworker_http_requests_total", frozenset(missed)] == 1
    assert samples["process_resident_memory_bytes", frozenset()] > 1 << 20
    queues = {dict(labels)["queue"] for name, labels in samples if name == "geoworker_queue_messages"}
    assert queues == {"geospatial-jobs", "raster-tasks", "vector-tasks", "long-running-tasks"}
    assert any(name == "geoworker_build_info" for name, _ in samples)


def test_probes_tell_the_state_of_each_component(client):
    ready = client.get("/readyz").json
    assert ready["status"] == "ok"
    assert set(ready["components"]) == {"process", "loops", "queue", "database", "storage", "plugins"}
    assert set(client.get("/livez").json["components"]) == {"loops"}
    health = client.get("/health").json
    assert all(part["state"] == "ok" and part["since"] > 0 for part in health["components"].values())


def test_a_server_that_stops_is_not_ready_and_lives(make_geoworker, slow):  # noqa: F811
    geoworker = make_geoworker(**FAST)
    server = geoworker.serve()
    client = Client(geoworker.http())
    submit_slow(geoworker, slow)
    until(lambda: encoding(geoworker))
    server.terminate()
    part = until(lambda: client.ask("GET", "/readyz").json["components"]["process"]["detail"])
    assert part == "it is stopping"
    client.get("/readyz", 503)
    client.get("/livez")
    server.send_signal(signal.SIGTERM)
    assert server.wait(60) == 0


def test_probes_answer_before_the_database_does(make_geoworker):
    """R18: it waits, and is not ready."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = str(reserved.getsockname()[1])
        nobody = dict(POSTGRES_HOST="127.0.0.1", POSTGRES_PORT=port, POSTGRES_USER="x", POSTGRES_DATABASE="x")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        geoworker = make_geoworker(GEOWORKER_HTTP=address, **nobody)
        server = geoworker.serve(ready=False)
        client = Client(address)

        def answers():
            with contextlib.suppress(OSError):
                return client.get("/livez")

        until(answers)
        assert "starting" in client.get("/readyz", 503).json["components"]["process"]["detail"]
        answer = client.get("/api/jobs", 503)
        answer.problem(503, "STARTING")
        assert answer.headers["retry-after"]
        server.terminate()
        assert server.wait(30) == 130


def test_a_worker_has_probes_and_no_job_api(make_geoworker, postgres):
    client = client_of(make_geoworker(APP_MODE="worker_docker", **FAST, **postgres))
    client.get("/readyz")
    client.get("/metrics")
    client.get("/api/jobs", 404).problem(404, "HTTP_ROUTE_UNKNOWN")


def test_a_taken_address_is_an_error_only_where_it_was_asked_for(make_geoworker):
    with contextlib.ExitStack() as stack:
        taken = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        error = make_geoworker(GEOWORKER_HTTP=address).json("serve", code=2)["error"]
        assert error["code"] == "HTTP_BIND" and address in error["message"]
        # Whoever else holds the usual port will do, too.
        with contextlib.suppress(OSError):
            stack.enter_context(socket.create_server(("127.0.0.1", 8080)))
        geoworker = make_geoworker(GEOWORKER_HTTP="")
        client = client_of(geoworker)
        assert not client.address.endswith(":8080")
        client.get("/readyz")


def test_http_can_be_switched_off(make_geoworker):
    geoworker = make_geoworker(GEOWORKER_HTTP="off")
    geoworker.serve()
    assert geoworker.http() is None
    assert geoworker.json("config", "show")["http"] == "off"
