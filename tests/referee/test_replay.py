"""A replay of recorded decisions finds a planted change of one rule, and nothing else (B4)."""

import json

from conftest import ROOT

GREETINGS = 400
PLANTED = ROOT / "plugins/dist-planted/hello.wasm"
PLAIN = ROOT / "plugins/dist/hello.wasm"


def recorded(geoworker):
    """400 greetings and as many replies: of each task a validation, a route and a run of its handler."""
    geoworker.json("run", "hello_world", "--param", f"n={GREETINGS}", timeout=300)


def test_a_replay_finds_a_planted_rule_and_nothing_else(geoworker):
    recorded(geoworker)
    same = geoworker.json("plugin", "replay", "--candidate", PLAIN, timeout=300)
    assert same["replayed"] >= 1000 and same["changed"] == 0, same
    assert same["not_comparable"] == {} and same["not_offered"] == 0
    assert set(same["kinds"]) == {"validate", "route", "plan-stage", "handle", "finalize"}
    assert same["kinds"]["handle"]["same"] == 2 * GREETINGS

    found = geoworker.json("plugin", "replay", "--candidate", PLANTED, "--all", code=1, timeout=300)
    assert found["replayed"] == same["replayed"]
    expected = {f"number {number}" for number in range(7, GREETINGS + 1, 7)}
    assert found["changed"] == len(found["changes"]) == len(expected)
    for change in found["changes"]:
        assert (change["kind"], change["type_name"]) == ("handle", "hello_greet")
        old, new = change["old"]["ok"]["greeting"], change["new"]["ok"]["greeting"]
        assert old.replace("hello", "good day") == new
        expected.remove(old.split(", ")[1])
        assert change["job_id"] and change["task_id"]
    assert not expected
    for kind, counts in found["kinds"].items():
        assert counts["not_comparable"] == 0
        assert counts["changed"] == (len(found["changes"]) if kind == "handle" else 0)

    first = geoworker.json("plugin", "replay", "--candidate", PLANTED, code=1, timeout=300)
    assert first["changed"] == found["changed"] and len(first["changes"]) == 20
    text = geoworker.run("plugin", "replay", "--candidate", PLANTED, "--kind", "handle", code=1, timeout=300)
    assert "changed: handle of hello_greet" in text and "more changes" in text


def test_filters_and_a_candidate_that_does_not_load(geoworker, tmp_path):
    geoworker.json("run", "hello_world", "--param", "n=3")
    newest = geoworker.json("plugin", "replay", "--candidate", PLAIN, "--kind", "validate", "--limit", "2")
    assert newest["kinds"] == {"validate": {"same": 2, "changed": 0, "not_comparable": 0}}
    one = geoworker.json("plugin", "replay", "--candidate", PLAIN, "--type", "hello_reply", "--since", "1h")
    assert one["kinds"]["handle"]["same"] == 3
    other = geoworker.json("plugin", "replay", "--candidate", ROOT / "plugins/dist/raster.wasm")
    assert other["replayed"] == 0 and other["not_offered"] > 0
    broken = tmp_path / "broken.wasm"
    broken.write_text("no wasm")
    error = geoworker.json("plugin", "replay", "--candidate", broken, code=2)["error"]
    assert error["code"] == "PLUGIN_NOT_WASM"


def test_nothing_is_recorded_where_it_is_off(geoworker):
    geoworker.environment["GEOWORKER_DECISIONS"] = "off"
    job = geoworker.json("run", "hello_world", "--param", "n=2")
    replay = geoworker.json("plugin", "replay", "--candidate", PLAIN)
    assert replay["replayed"] == 0 and job, json.dumps(replay)


def test_refused_submissions_are_recorded_too(geoworker, tmp_path):
    geoworker.json("run", "process_raster", "--param", "container_name=in", "--param", "blob_name=missing.tif", code=2)
    raster = ROOT / "plugins/dist/raster.wasm"
    replay = geoworker.json("plugin", "replay", "--candidate", raster, "--kind", "validate")
    assert replay["kinds"]["validate"]["same"] == 1
