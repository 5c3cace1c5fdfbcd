"""Plugins are replaced under load: nothing is lost, and every task ran on one good version.

    python3 tests/bench/reload.py [--replacements 50] [--broken 5]

A server runs hello_world jobs (10 greetings, 10 replies each: 1000 tasks with the default) while the file of their plugin is replaced,
once for each job; each fifth content is broken. The next replacement comes when the server has told that it reloaded, and the
time until then is what is measured: the quiet time of the watch (500 ms) is in it. Good versions are the same code with another custom
section, so their digests differ. Needs bin/geoworker and plugins/dist.
"""

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = ROOT / "bin" / "geoworker"
DIST = ROOT / "plugins" / "dist"
GREETINGS = 10
TASKS_OF_A_JOB = 2 * GREETINGS
# Seconds that a reload, and all that is left at the end, may take at most.
PATIENCE = 120


def until(condition, what):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"waited {PATIENCE} s for {what}")
        time.sleep(0.01)


def marked(content, number):
    """The same plugin with another digest: a custom section at its end."""
    payload = b"\x01m" + str(number).encode()
    return content + bytes([0, len(payload)]) + payload


def replace(path, content):
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    new.rename(path)


def reloads(log):
    return log.read_text().count('"plugins reloaded"')


def load(work, replacements, broken):
    """Replaces and submits; answers the digests of good versions and the seconds of each reload."""
    plugins, log = shutil.copytree(DIST, work / "plugins"), work / "server.log"
    original = (plugins / "hello.wasm").read_bytes()
    plain = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    environment = plain | {"GEOWORKER_HTTP": "off", "LOG_FORMAT": "json"}
    command = [str(BINARY), "--data-dir", str(work / "data"), "--plugins"]
    with open(log, "ab") as errors:
        server = subprocess.Popen([*command, str(plugins), "serve"], env=environment, stderr=errors)
    try:
        until(lambda: " serves" in log.read_text(), "the server")
        good, seconds, submitters = {hashlib.sha256(original).hexdigest()}, [], []
        for number in range(1, replacements + 1):
            # Whoever submits has a good version: only the server meets the broken ones.
            submit = [*command, str(DIST), "submit", "hello_world", "--param", f"n={GREETINGS}", "--force"]
            submitters.append(subprocess.Popen(submit, env=environment, stdout=subprocess.DEVNULL))
            content = marked(original, number)
            if number % broken == 0:
                # Cut off within the code, and another digest each time.
                content = content[: len(original) // 2 - number]
            else:
                good.add(hashlib.sha256(content).hexdigest())
            before, started = reloads(log), time.monotonic()
            replace(plugins / "hello.wasm", content)
            until(lambda: reloads(log) > before or server.poll() is not None, "a reload")
            seconds.append(time.monotonic() - started)
        if any(submitter.wait() for submitter in submitters):
            sys.exit("a submission was refused")
        until(lambda: ended(work) == replacements or server.poll() is not None, "the jobs")
        return good, seconds
    finally:
        server.terminate()
        if server.wait():
            sys.exit(f"the server failed: {log.read_text()[-2000:]}")


def query(work, sql):
    with sqlite3.connect(f"file:{work / 'data' / 'geoworker.db'}?mode=ro", uri=True) as database:
        return database.execute(sql).fetchall()


def ended(work):
    return query(work, "SELECT count(*) FROM jobs WHERE ended_at IS NOT NULL")[0][0]


def check(work, jobs, good):
    """What is wrong, in sentences."""
    tasks = query(work, "SELECT task_id, state, plugin_digest FROM tasks")
    claims = query(work, "SELECT count(*) FROM events WHERE kind = 'task_claimed' GROUP BY task_id")
    wrong = []
    if query(work, "SELECT count(*) FROM jobs WHERE state = 'completed'") != [(jobs,)]:
        wrong.append("a job was lost or failed")
    if len(tasks) != jobs * TASKS_OF_A_JOB or any(state != "completed" for _, state, _ in tasks):
        wrong.append(f"{len(tasks)} tasks instead of {jobs * TASKS_OF_A_JOB}, or not all completed")
    if any(digest not in good for *_, digest in tasks):
        wrong.append("a task ran on a version that is no good one")
    # The digest is written by the claim: one claim is one version.
    if len(claims) != len(tasks) or any(count != 1 for (count,) in claims):
        wrong.append("a task was claimed more than once")
    return wrong, len({digest for *_, digest in tasks})


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--replacements", type=int, default=50)
    parser.add_argument("--broken", type=int, default=5, help="each so many-th content is broken")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reload") as folder:
        work = pathlib.Path(folder)
        good, seconds = load(work, options.replacements, options.broken)
        wrong, versions = check(work, options.replacements, good)
    print(json.dumps({
        "tasks": options.replacements * TASKS_OF_A_JOB, "replacements": options.replacements,
        "broken": options.replacements // options.broken, "versions_that_ran_tasks": versions,
        "reload_seconds": {"p50": round(statistics.median(seconds), 3), "longest": round(max(seconds), 3)}, "wrong": wrong,
    }))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
