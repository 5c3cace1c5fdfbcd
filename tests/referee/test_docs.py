"""The documents say what is: their commands run, their example is the code, their limits are the defaults."""

import os
import re
import shutil
import subprocess

import pytest

from conftest import BINARY, ROOT
from rasters import write

DOCUMENTS = ["README.md", "docs/operators.md", "docs/plugins.md"]


def blocks(document, language):
    text = (ROOT / document).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_of_the_documents_run(document, tmp_path):
    write(tmp_path / "scene.tif", count=3)
    shutil.copytree(ROOT / "plugins/dist-example", tmp_path / "example-plugins")
    environment = {"PATH": f"{BINARY.parent}:{os.environ['PATH']}", "GEOWORKER_PLUGINS": str(ROOT / "plugins/dist")}
    scripts = blocks(document, "sh")
    assert scripts, f"{document} has no commands"
    for script in scripts:
        done = subprocess.run(["bash", "-euc", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"


def test_the_example_of_the_tutorial_is_the_plugin():
    assert blocks("docs/plugins.md", "rust") == [(ROOT / "plugins/example/src/lib.rs").read_text()]


def test_the_documented_limits_are_accepted(make_geoworker, tmp_path):
    (limits,) = blocks("docs/operators.md", "toml")
    (tmp_path / "limits.toml").write_text(limits)
    assert make_geoworker(GEOWORKER_LIMITS=str(tmp_path / "limits.toml")).json("run", "hello_world")["state"] == "completed"
    (tmp_path / "limits.toml").write_text("cpu = 1\n")
    error = make_geoworker(GEOWORKER_LIMITS=str(tmp_path / "limits.toml")).json("plugin", "list", code=2)["error"]
    assert error["code"] == "CONFIG_INVALID"


def test_every_setting_is_documented():
    files = [ROOT / "host/geoworker/src" / name for name in ("config.rs", "config/backends.rs", "http_config.rs", "plugin_config.rs")]
    code = "".join(file.read_text().split("#[cfg(test)]")[0] for file in files)
    names = set(re.findall(r'"((?:GEOWORKER|RASTER|SERVICE_BUS|POSTGRES|LOG|APP|LONG)_[A-Z_]+)"', code))
    text = (ROOT / "docs/operators.md").read_text()
    assert not [name for name in sorted(names) if f"`{name}`" not in text]


def test_links_lead_somewhere():
    for document in [*DOCUMENTS, "docs/deploy.md", "tests/servicebus-emulator/README.md", "ARCHITECTURE.md", "wit/README.md"]:
        folder = (ROOT / document).parent
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / document).read_text()):
            assert (folder / target).exists(), f"{document}: {target}"
