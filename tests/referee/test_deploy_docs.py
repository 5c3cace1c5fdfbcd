"""docs/deploy.md: its commands are Bash, the variables it names are read by somebody, its table of roles follows the modes."""

import json
import re
import subprocess

import pytest

from conftest import BINARY, ROOT

DOCUMENT = ROOT / "docs/deploy.md"
TEXT = DOCUMENT.read_text()
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
# Read by libpq's psql, not by geoworker.
OTHERS = {"PGPASSWORD", "PGHOST", "PGUSER", "PGSSLMODE", "PGSSLROOTCERT"}
# Names of variables and codes; `ServiceBusConnection` is the only one in another style.
NAME = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+|ServiceBusConnection")
SERVED = {"geospatial-jobs": "jobs_queue", "raster-tasks": "raster_queue", "vector-tasks": "vector_queue", "long-running-tasks": "long_queue"}


def read_by_geoworker():
    """Names in the sources of the host, but for their tests' values nothing else."""
    files = (ROOT / "host").glob("*/src/**/*.rs")
    return {name for file in files for name in NAME.findall(file.read_text())}


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def roles_by_mode():
    """Mode to queue to letters, as the table says."""
    lines = TEXT.splitlines()
    (first,) = (number for number, line in enumerate(lines) if line.startswith("| mode |"))
    queues = cells(lines[first])[1:]
    table = {}
    for line in lines[first + 2:]:
        if not line.startswith("|"):
            break
        mode, *letters = cells(line)
        table[mode.strip("`")] = dict(zip(queues, map(str.split, letters), strict=True))
    return table


def properties(mode, folder):
    # A socket's folder as the host: no identity is asked for.
    environment = {"APP_MODE": mode, "POSTGRES_HOST": str(folder), "POSTGRES_USER": "u", "POSTGRES_DATABASE": "d"}
    shown = subprocess.run([BINARY, "--json", "config", "show"], env=environment, cwd=folder, capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    return json.loads(shown.stdout)["mode_properties"]


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_commands_are_bash(block):
    checked = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, timeout=60)
    # Bash only warns of a here-document without an end.
    assert (checked.returncode, checked.stderr) == (0, ""), f"{block}\n{checked.stderr}"


def test_every_block_of_commands_is_checked():
    assert BLOCKS and {"", "bash"} == set(re.findall(r"^```(\w*)$", TEXT, re.MULTILINE))


def test_variables_of_commands_are_set_before():
    known, used = set(OTHERS), []
    for block in BLOCKS:
        # What a quoted here-document holds is not the shell's.
        script = re.sub(r"<<'(\w+)'.*?^\1$", "", block, flags=re.MULTILINE | re.DOTALL)
        known |= set(re.findall(r"(?:^|\s)(\w+)=", script)) | set(re.findall(r"\bfor (\w+) in", script))
        used += [name for name in re.findall(r"\$\{?([A-Za-z_]\w*)", script) if name not in known]
    assert not used


def test_variables_and_codes_are_known_to_geoworker():
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL))
    named = {span.split("=")[0] for span in spans if NAME.fullmatch(span.split("=")[0])}
    exported = set(re.findall(r"^(ServiceBusConnection|[A-Z]+_STORAGE_CONNECTION)=", TEXT, re.MULTILINE))
    assert len(named) > 20 and len(exported) == 3
    assert not (named | exported) - read_by_geoworker()


def test_roles_follow_the_modes(tmp_path):
    table = roles_by_mode()
    assert len(table) == 7
    for mode, roles in table.items():
        mode_properties = properties(mode, tmp_path)
        for queue, served in SERVED.items():
            letters = roles[queue]
            assert "S" in letters, f"{mode} relays to {queue}"
            assert ("R" in letters) == mode_properties[served], f"{mode} and {queue}"
            # The sweeper counts what waits for others.
            assert ("C" in letters) == (mode_properties["jobs_queue"] and not mode_properties[served]), f"{mode} and {queue}"


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", TEXT):
        assert (DOCUMENT.parent / target).exists(), target
