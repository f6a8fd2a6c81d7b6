"""The files of deploy/ and .github/: they parse, agree with the code, and pass the checkers of their own kinds where these are installed."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.check_dockerfile import filled, pairs, steps
from deploy.first_minutes import commands, normal
from mixcli.host.metrics import HostMetrics
from mixcli.host.protocol.health import HostCounts, HostUse
from mixcli.serve.keys import check_key
from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PINNED = re.compile(r"[\w-]+/[\w-]+@[0-9a-f]{40}")


def has(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def passes(*words: str | Path) -> None:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
class TestWorkflows:
    def test_actions_are_pinned_and_their_version_is_named(self, path: Path) -> None:
        used = re.findall(r"uses: (\S+)(.*)", path.read_text("utf-8"))
        assert used
        assert [one for one, note in used if not PINNED.fullmatch(one) or not re.match(r" # v\d", note)] == []

    def test_jobs_have_few_rights_and_an_end(self, path: Path) -> None:
        workflow = yaml.safe_load(path.read_text("utf-8"))
        assert workflow["permissions"] in ({}, {"contents": "read"})
        for name, job in workflow["jobs"].items():
            assert job["timeout-minutes"] <= 180
            writes = {what for what, right in job.get("permissions", {}).items() if right == "write"}
            assert writes <= {"pypi": {"id-token"}, "github": {"contents"}, "images": {"packages"}}.get(
                name, set()
            )
            assert set(_list(job.get("needs", []))) <= workflow["jobs"].keys()
            checkouts = [one for one in job["steps"] if "checkout" in one.get("uses", "")]
            assert all(one["with"]["persist-credentials"] is False for one in checkouts)

    def test_what_steps_run_is_there(self, path: Path) -> None:
        workflow = yaml.safe_load(path.read_text("utf-8"))
        scripts = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
        assert not any("${{" in script for script in scripts), (
            "what others wrote comes in variables, not as code"
        )
        named = {word for script in scripts for word in re.findall(r"(?:\.ci|deploy)/[\w.]+", script)}
        assert [name for name in named if not (ROOT / name).exists()] == []

    @has("bash")
    def test_scripts_are_bash(self, path: Path, tmp_path: Path) -> None:
        for job in yaml.safe_load(path.read_text("utf-8"))["jobs"].values():
            for step in job["steps"]:
                passes("bash", "-n", "-c", step.get("run", "true"))


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def test_what_is_published_was_tested_and_is_what_was_built() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text("utf-8"))["jobs"]
    assert set(jobs["pypi"]["needs"]) == {"build", "test"}
    assert jobs["github"]["needs"] == "pypi"
    assert [name for name, job in jobs.items() if "python -m build" in str(job)] == ["build"]


def test_every_metric_of_the_dashboard_exists() -> None:
    dashboard = (DEPLOY / "grafana.json").read_text("utf-8")
    page = HostMetrics().page(HostCounts(), HostUse()).decode()
    known = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.M))
    series = {
        f"{name}{end}"
        for name, kind in known.items()
        for end in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))
    }
    named = set(re.findall(r"\bmixcli_\w+", dashboard))
    assert len(named) > 8
    assert named - series == set()
    panels = json.loads(dashboard)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["description"] and panel["targets"] for panel in panels)


def compose() -> dict[str, Any]:
    found = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    assert isinstance(found, dict)
    return found


def test_a_service_of_compose_is_closed_to_others() -> None:
    for name, service in compose()["services"].items():
        assert service["profiles"] == [name], "none starts unless it is chosen"
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert service["env_file"] == "mixcli.env"
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).samefile(
            DEPLOY / "Dockerfile"
        )
    key = "".join(re.findall(r"openssl rand -hex (\d+)", (DEPLOY / "compose.yaml").read_text("utf-8")))
    assert check_key("a" * 2 * int(key), "the key of the first lines", "")


def dockerfile() -> list[tuple[str, str]]:
    return list(steps((DEPLOY / "Dockerfile").read_text("utf-8")))


def test_the_dockerfile_has_what_a_service_needs() -> None:
    of = dict(dockerfile())
    assert of["USER"] == "mixcli"
    assert (of["EXPOSE"], of["VOLUME"]) == ("8080", "/data")
    assert json.loads(of["ENTRYPOINT"]) + json.loads(of["CMD"]) == ["mixcli", "serve", "--host", "0.0.0.0"]
    assert "/health" in of["HEALTHCHECK"]
    assert pairs(of["ENV"])["MIXCLI_HOME"] == "/data"
    known = {rest.partition("=")[0] for name, rest in dockerfile() if name == "ARG"}
    given = {name for service in compose()["services"].values() for name in service["build"].get("args", {})}
    assert given <= known
    assert "latest" not in str(dockerfile())


def test_the_dockerfile_copies_what_the_wheel_is_made_of_and_nothing_else() -> None:
    copied = {
        word
        for name, rest in dockerfile()
        if name == "COPY" and "--from" not in rest
        for word in rest.split()[:-1]
    }
    assert copied == {"pyproject.toml", "README.md", "LICENSE", "mixcli", "quantize", "profiles"}
    kept = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    assert {line[1:] for line in kept if line.startswith("!")} == copied


@has("sed")
def test_the_dockerfile_finds_the_release_of_the_bindings() -> None:
    (script,) = (
        re.findall(r"\$\((sed .*pyproject.toml)\)", rest)[0]
        for name, rest in dockerfile()
        if name == "RUN" and "sed" in rest
    )
    said = subprocess.run(["sh", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f'"{said.strip()}"' in (ROOT / "pyproject.toml").read_text("utf-8")
    assert said.startswith("llama-cpp-python==")


def test_a_dockerfile_is_read_as_docker_reads_it() -> None:
    text = '# syntax\nARG A=b\nFROM ${A}:1 AS x\nRUN one && \\\n    # a comment\n    two\nENV C="d e" \\\n    F=g\n'
    assert list(steps(text)) == [
        ("ARG", "A=b"),
        ("FROM", "${A}:1 AS x"),
        ("RUN", "one && two"),
        ("ENV", 'C="d e" F=g'),
    ]
    assert filled("${A}:$B:${none}", {"A": "1", "B": "2"}) == "1:2:"
    assert pairs('C="d e" F=g') == {"C": "d e", "F": "g"}


def test_the_readmes_first_five_minutes_are_found() -> None:
    found = commands((ROOT / "README.md").read_text("utf-8"))
    assert [command.split()[-1] for command, shown in found if shown is None] == ["demo"], "the chat"
    assert found[1] == (
        'echo "What is the capital of France?" | mixcli run -m demo',
        ["The capital of France is Paris."],
    )
    assert len(found) >= 7
    assert normal("demo:Q4_K_M  1994   490.9 MB  ready") == normal("demo:Q4_K_M  27 490.9 MB  ready")
    assert normal("stopped demo:Q4_K_M (pid 1994)") == normal("stopped demo:Q4_K_M (pid 7)")
    assert normal("in 299 s") == normal("in 300 s") != normal("in 30 s")


@has("ruby")
def test_the_formula_is_ruby() -> None:
    done = subprocess.run(
        ["ruby", "-c", str(DEPLOY / "homebrew/mixcli.rb")], capture_output=True, text=True, check=False
    )
    assert done.stdout == "Syntax OK\n", done.stderr


@has("shellcheck")
def test_scripts_pass_shellcheck() -> None:
    passes("shellcheck", DEPLOY / "check_install.sh", ROOT / ".ci/run")


@has("systemd-analyze")
@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("system", "mixcli", "serve --host 127.0.0.1 --port 8080"),
        ("user", "mixcli", "serve --host 127.0.0.1 --port 8080"),
        ("system", "mixcli-worker", "worker --listen 127.0.0.1:50052"),
    ],
)
def test_units_pass_systemds_own_check(kind: str, name: str, expected: str, tmp_path: Path) -> None:
    text = (DEPLOY / "systemd" / kind / f"{name}.service").read_text("utf-8")
    program, options = re.findall(r"^ExecStart=(\S+) (.*)$", text, re.M)[0]
    assert options == expected
    unit = tmp_path / f"{name}.service"  # with a program that exists here
    unit.write_text(text.replace(f"ExecStart={program}", f"ExecStart={sys.executable}"))
    words = ["systemd-analyze", "verify", f"--{kind}", "--man=no", str(unit)]
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}  # a user's manager wants one
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=env)
    assert (done.returncode, done.stderr) == (0, "")
