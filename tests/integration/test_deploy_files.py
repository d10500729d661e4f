"""What the files in deploy/ and constraints.txt say, held against what is there."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from asktell.cli.app import PARTS

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE = (DEPLOY / "compose.yaml").read_text()


def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pairs = [line.split("==") for line in lines]
    return {canonicalize_name(name): version for name, version in pairs}


def requirements() -> list[Requirement]:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = document["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values(), document["dependency-groups"]["dev"]]
    return [found for group in groups for each in group if (found := Requirement(each)).name != project["name"]]


def test_every_requirement_is_pinned_to_a_version_that_it_allows() -> None:
    pinned = pins()
    wrong = [str(each) for each in requirements() if pinned.get(canonicalize_name(each.name), "") not in each.specifier]
    assert wrong == []


def test_no_pin_is_of_a_build_that_only_some_indexes_have() -> None:
    assert [name for name, version in pins().items() if "+" in version] == []


def service(name: str) -> str:
    """The lines of a service, those that it shares with others included."""
    services = COMPOSE.partition("\nservices:\n")[2].partition("\nvolumes:\n")[0]
    (body,) = re.findall(rf"^  {name}:\n((?:    .*\n|\n)+)", services, re.MULTILINE)
    shared = dict(re.findall(r"^x-\w+: &(\w+)\n((?:  .*\n)+)", COMPOSE, re.MULTILINE))
    while "<<: *" in body:
        body = re.sub(r" *<<: \*(\w+)\n", lambda match: shared[match[1]], body)
    return body


def test_two_replicas_of_the_server_and_two_workers_are_started() -> None:
    assert all("replicas: 2\n" in service(name) for name in ("server", "worker"))


def test_the_schema_is_migrated_between_the_database_and_the_servers() -> None:
    assert "command: [migrate]" in service("migrate")
    assert "db: { condition: service_healthy }" in service("migrate")
    assert "migrate: { condition: service_completed_successfully }" in service("server")


def test_the_proxy_alone_is_published_and_to_this_machine_alone() -> None:
    published = re.findall(r"ports: (.*)", COMPOSE)
    assert published == ['["127.0.0.1:50051:50051"]']
    assert published[0] in service("proxy")


def test_only_the_servers_reach_the_database() -> None:
    assert "inside:\n    internal: true" in COMPOSE
    assert [name for name in ("db", "migrate", "server", "proxy", "study", "worker") if "inside" in service(name)] == [
        "db",
        "migrate",
        "server",
    ]


@pytest.mark.parametrize("name", ["migrate", "server", "proxy", "study", "worker"])
def test_what_is_ours_runs_confined(name: str) -> None:
    body = service(name)
    assert "read_only: true" in body
    assert "cap_drop: [ALL]" in body
    assert "no-new-privileges:true" in body


def test_what_the_compose_file_builds_and_mounts_is_there() -> None:
    targets = set(re.findall(r"^    target: (\w+)$", COMPOSE, re.MULTILINE))
    assert targets == {"server", "worker"} <= set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE))
    mounted = re.findall(r"\./([\w./-]+):/", COMPOSE)
    assert mounted, "the configuration of the proxy and the example"
    assert [path for path in mounted if not (DEPLOY / path).exists()] == []


def test_the_commands_of_images_and_compose_file_are_commands_of_asktell() -> None:
    named = re.findall(r'^CMD \["(\w+)"', DOCKERFILE, re.MULTILINE) + re.findall(r'"asktell", "(\w+)"', DOCKERFILE)
    composed = [name for name in re.findall(r"command: \[(\w+)", COMPOSE) if name != "envoy"]
    assert {"serve", "health", "work", "migrate", "study"} == {*named, *composed} <= PARTS.keys()


def test_the_images_run_as_a_user_without_rights_and_get_the_signals() -> None:
    last = [stage for stage in DOCKERFILE.split("\nFROM ") if stage.startswith("runtime AS ")]
    assert [stage.partition("\n")[0] for stage in last] == ["runtime AS worker", "runtime AS server"]
    assert all("\nUSER 10001:10001\n" in stage for stage in last)
    # Only this form starts no shell, which would keep SIGTERM to itself.
    assert 'ENTRYPOINT ["asktell"]' in DOCKERFILE


def test_any_user_of_group_0_can_write_the_data() -> None:
    assert "chgrp 0 /data" in DOCKERFILE
    assert "chmod g=u /data" in DOCKERFILE


def test_what_the_images_are_made_of_is_sent_to_the_builder() -> None:
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert copied
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert [source for source in copied if not any(fnmatch(source, pattern) for pattern in sent)] == []
