"""What the files in deploy/kubernetes say, held against the schemas of Kubernetes and the commands of asktell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from asktell.cli.app import build
from asktell.server.cli import app as server_app
from asktell.server.rpc.server import LIVENESS, SERVICES
from asktell.worker.cli import app as worker_app

KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"
DOCKERFILE = (KUBERNETES.parent / "Dockerfile").read_text()
DIRECTORIES = ("server", "worker", "job")
OLDEST = "1.31"
Manifest = dict[str, Any]


def manifests() -> list[Manifest]:
    files = [file for file in sorted(KUBERNETES.glob("*/*.yaml")) if file.name != "kustomization.yaml"]
    return [document for file in files for document in yaml.safe_load_all(file.read_text())]


def pods() -> list[Manifest]:
    return [each["spec"]["template"] for each in manifests() if "template" in each["spec"]]


def containers() -> Iterator[tuple[Manifest, Manifest]]:
    """Each container with its pod's template."""
    for pod in pods():
        for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
            yield pod, container


def option(container: Manifest, name: str, usual: float) -> float:
    words = container["args"]
    return float(words[words.index(name) + 1]) if name in words else usual


def environment(container: Manifest) -> dict[str, Any]:
    return {each["name"]: each.get("value") for each in container.get("env", [])}


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
def test_every_manifest_is_one_that_kubernetes_takes(version: str) -> None:
    for manifest in manifests():
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("name", DIRECTORIES)
def test_a_kustomization_names_the_files_beside_it_and_the_images_in_them(name: str) -> None:
    directory = KUBERNETES / name
    kustomization = yaml.safe_load((directory / "kustomization.yaml").read_text())
    assert {*kustomization["resources"], "kustomization.yaml"} == {file.name for file in directory.iterdir()}
    used = {
        line.split("image: ")[1]
        for line in "".join(f.read_text() for f in directory.iterdir()).splitlines()
        if "image: " in line
    }
    assert {image["name"] for image in kustomization["images"]} == used


def test_the_images_are_those_that_the_dockerfile_makes() -> None:
    used = {container["image"] for _, container in containers()}
    assert used == {"asktell-server", "asktell-worker"}
    assert all(f"--tag {image} ." in DOCKERFILE for image in used)


def test_the_commands_are_ones_that_asktell_takes() -> None:
    said = [container["args"] for _, container in containers()]
    assert sorted(words[0] for words in said) == ["migrate", "serve", "work", "work"]
    for words in said:
        build(words[0]).parse_args(words, print_error=False, exit_on_error=False)


def test_the_environment_is_what_the_commands_read() -> None:
    apps = (worker_app, server_app["serve"], server_app["migrate"])
    read = {
        name
        for app in apps
        for argument in app.assemble_argument_collection()
        for name in argument.parameter.env_var or ()
    }
    said = {name for _, container in containers() for name in environment(container)}
    # libpq reads the password itself.
    assert {"ASKTELL_DATABASE", "ASKTELL_TARGET", "ASKTELL_CHECKPOINTS"} <= said <= read | {"PGPASSWORD"}


def test_the_password_comes_apart_from_the_address_to_all_that_reach_the_database() -> None:
    for _, container in containers():
        names = environment(container)
        assert ("PGPASSWORD" in names) is ("ASKTELL_DATABASE" in names)
        keys = {
            each["name"]: each["valueFrom"]["secretKeyRef"]["key"] for each in container["env"] if "valueFrom" in each
        }
        assert keys in ({}, {"ASKTELL_DATABASE": "url", "PGPASSWORD": "password"})


def test_a_server_without_its_database_is_taken_out_and_one_that_hangs_is_killed() -> None:
    (server,) = [container for _, container in containers() if container["name"] == "server"]
    assert "service" not in server["readinessProbe"]["grpc"]
    assert server["livenessProbe"]["grpc"]["service"] == LIVENESS
    assert LIVENESS not in SERVICES


def test_who_is_told_to_end_has_time_for_it() -> None:
    for pod, container in containers():
        needed = option(container, "--grace", float(environment(container).get("ASKTELL_DRAIN") or 0))
        assert pod["spec"]["terminationGracePeriodSeconds"] >= needed + 10


def test_all_run_confined_with_nothing_to_write_but_what_is_mounted() -> None:
    for pod, container in containers():
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["securityContext"]["runAsUser"] == 10001
        assert "USER 10001:10001" in DOCKERFILE
        confined = container["securityContext"]
        assert confined["readOnlyRootFilesystem"] is True
        assert confined["allowPrivilegeEscalation"] is False
        assert confined["capabilities"] == {"drop": ["ALL"]}
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_workers_have_a_gpu_and_their_states_and_logs_on_a_volume_that_all_see() -> None:
    workers = [container for _, container in containers() if container["name"] == "worker"]
    for container in workers:
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
        places = environment(container)
        assert all(places[name].startswith("/shared/") for name in ("ASKTELL_CHECKPOINTS", "ASKTELL_LOGS"))
    claims = [each["spec"]["accessModes"] for each in manifests() if each["kind"] == "PersistentVolumeClaim"]
    assert claims == [["ReadWriteMany"], ["ReadWriteMany"]]


def test_workers_may_call_the_servers_by_the_name_and_port_of_their_service() -> None:
    (service,) = [each for each in manifests() if each["kind"] == "Service"]
    (policy,) = [each for each in manifests() if each["kind"] == "NetworkPolicy"]
    assert service["spec"]["clusterIP"] == "None"
    target = f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    allowed, _ = policy["spec"]["ingress"]
    assert allowed["ports"] == [{"port": service["spec"]["ports"][0]["port"]}]
    wanted = allowed["from"][0]["podSelector"]["matchLabels"]
    for pod, container in containers():
        if container["name"] == "worker":
            assert environment(container)["ASKTELL_TARGET"] == target
            assert wanted.items() <= pod["metadata"]["labels"].items()


def test_prometheus_may_read_the_page_on_the_port_that_servers_have_it_on() -> None:
    (policy,) = [each for each in manifests() if each["kind"] == "NetworkPolicy"]
    _, scrapes = policy["spec"]["ingress"]
    ((pod, server),) = [found for found in containers() if found[1]["name"] == "server"]
    (port,) = [each["containerPort"] for each in server["ports"] if each["name"] == "metrics"]
    assert environment(server)["ASKTELL_PROMETHEUS_LISTEN"] == f"0.0.0.0:{port}"
    assert scrapes["ports"] == [{"port": port}]
    assert pod["metadata"]["annotations"] == {"prometheus.io/scrape": "true", "prometheus.io/port": str(port)}
    assert "namespaceSelector" in scrapes["from"][0]


def test_a_job_starts_a_worker_again_that_was_told_to_end() -> None:
    (job,) = [each for each in manifests() if each["kind"] == "Job"]
    (worker,) = job["spec"]["template"]["spec"]["containers"]
    ignored = [
        rule["onExitCodes"]["values"] for rule in job["spec"]["podFailurePolicy"]["rules"] if "onExitCodes" in rule
    ]
    assert ignored == [[int(option(worker, "--interrupted-status", 0))]]
