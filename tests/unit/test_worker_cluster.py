"""What `asktell work --on ...` makes of its command line."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from asktell.worker import cli
from asktell.worker.cli import Manner, Place, app, work
from asktell.worker.cluster.fleet import Fleet, Misplaced, Standing
from asktell.worker.cluster.on_ray import RayEngine
from asktell.worker.cluster.on_slurm import script
from asktell.worker.cluster.options import HERE, Cluster, command_line, is_of_this_machine
from asktell.worker.cluster.placed import Placed
from tests.ports import free_port

SCRIPT = Path(__file__).parents[2] / "deploy" / "slurm" / "worker.sbatch"


def parsed(*words: str) -> dict[str, object]:
    _, bound, _ = app.parse_args(words, print_error=False, exit_on_error=False)
    return {"objective": bound.args, **bound.kwargs}


@pytest.mark.parametrize(
    ("manner", "objective"),
    [
        (Manner(), ("train:objective",)),
        (Manner(max_trials=3, fixed=("a=1", "b=x y"), retry="never", lease_duration=2.5), ("sh", "-c", "--x {x}")),
        (Manner(end_with_stdin=True, infeasible_exit_code=(42, 43)), ("a", "--", "b")),
    ],
)
def test_a_workers_command_line_says_what_the_leads_said(manner: Manner, objective: tuple[str, ...]) -> None:
    place = Place(study="s", target="host:1", project="p")
    command, *words = command_line(objective, place, manner)
    assert command == "work"
    found = parsed(*words)
    assert (found["objective"], found["place"], found.get("manner", Manner())) == (objective, place, manner)


def test_options_from_the_environment_are_said_to_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASKTELL_TARGET", "service:50051")
    place = parsed("--study", "s", "train:objective")["place"]
    assert isinstance(place, Place)
    assert "--target=service:50051" in command_line((), place)


def test_without_an_engine_the_worker_is_here() -> None:
    assert parsed("--study", "s", "f:g").get("cluster", HERE) == Cluster(on=None)


@pytest.mark.parametrize(
    ("cluster", "complaint"),
    [
        (Cluster(workers=4), "--workers goes only with --on"),
        (Cluster(dry_run=True), "--dry-run goes only with --on"),
        (Cluster(on="ray", dry_run=True), "--dry-run does not go with --on ray"),
        (Cluster(on="slurm", working_dir="."), "--working-dir does not go with --on slurm"),
    ],
)
def test_an_option_that_would_count_for_nothing_is_refused(
    cluster: Cluster, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert work("f:g", place=Place(study="s", target=f"127.0.0.1:{free_port()}"), cluster=cluster) == 2
    assert capsys.readouterr().err == f"asktell work: {complaint}\n"


def test_a_relative_root_of_checkpoints_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    place = Place(study="s", target=f"127.0.0.1:{free_port()}")
    assert work("f:g", place=place, manner=Manner(checkpoints="states"), cluster=Cluster(on="slurm", dry_run=True)) == 2
    assert "--checkpoints states is relative" in capsys.readouterr().err


def test_max_trials_is_refused_on_a_cluster_where_each_worker_would_count_for_itself(capsys) -> None:
    place = Place(study="s", target=f"127.0.0.1:{free_port()}")
    assert work("f:g", place=place, manner=Manner(max_trials=9), cluster=Cluster(on="slurm", dry_run=True)) == 2
    said = capsys.readouterr().err
    assert "--max-trials counts the trials of one worker" in said
    assert "asktell study update s --max-trials N" in said


HERE_ONLY = (
    "localhost localhost:50051 127.0.0.1:1 127.1.2.3 [::1]:1 ::1 [::]:1 0.0.0.0:1 unix:/tmp/a unix-abstract:a"
    " dns:localhost:1 dns:///localhost:1 ipv4:127.0.0.1:1 ipv6:[::1]:1"
)
EVERYWHERE = (
    "server:50051 localhost2:1 localhost.example:1 my-localhost:1 10.0.0.1:1 1.127.0.1:1 dns:///server:1 unixbox:1"
    " dns://127.0.0.1/server:1 [2001:db8::1]:1 [fe80::1]:1 ipv4:10.0.0.1:1"
)


def test_addresses_that_mean_another_service_on_each_machine_are_known() -> None:
    assert [target for target in HERE_ONLY.split() if not is_of_this_machine(target)] == []
    assert [target for target in EVERYWHERE.split() if is_of_this_machine(target)] == []


@pytest.mark.parametrize(
    ("cluster", "target", "warned"),
    [
        (Cluster(on="slurm"), "localhost", True),
        (Cluster(on="ray"), "localhost", True),
        (Cluster(on="ray", address="local"), "localhost", False),
        (Cluster(on="slurm"), "dns:///service.invalid", False),
    ],
)
def test_a_lead_warns_of_a_service_that_workers_elsewhere_cannot_reach(
    cluster: Cluster, target: str, warned: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "RETRY_SECONDS", 0.0)
    # It goes on, to find that nobody is there.
    assert work("f:g", place=Place(study="s", target=f"{target}:{free_port()}"), cluster=cluster) == 1
    assert ("workers on other machines do not reach the service" in caplog.text) is warned


@pytest.mark.parametrize("cluster", [HERE, Cluster(on="ray", workers=2, working_dir="."), Cluster(address="host:1")])
def test_options_of_the_engine_are_not_refused(cluster: Cluster) -> None:
    assert not cluster.misplaced


def test_a_batch_script_is_one_that_bash_reads() -> None:
    fleet = Fleet(study="s", arguments=("work", "--study=s", "--", "sh", "-c", "echo '$HOME'"), workers=3, gpus=2)
    text = script(fleet, options={"partition": "a100", "exclusive": ""}, program=("asktell",))
    subprocess.run(["bash", "-n"], input=text, text=True, check=True, timeout=10)
    options = [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH")]
    assert {"array=1-3", "gres=gpu:2", "partition=a100", "exclusive", "requeue"} <= set(options)
    assert """asktell work --study=s -- sh -c 'echo '"'"'$HOME'"'"'' &""" in text


def test_a_part_of_a_gpu_is_refused_before_there_is_a_script() -> None:
    with pytest.raises(Misplaced, match=r"whole processors and GPUs, not 1 and 0\.5"):
        script(Fleet(study="s", arguments=("work",), workers=1, gpus=0.5), options={})


def test_the_batch_script_in_deploy_is_the_one_that_the_command_writes() -> None:
    fleet = Fleet(
        study="digits",
        arguments=(
            "work",
            "--study=digits",
            "--target=server:50051",
            "--checkpoints=/shared/checkpoints",
            "--slots=1",
            "--",
            "python",
            "train.py",
            "--lr",
            "{learning_rate}",
        ),
        workers=16,
        cpus=4,
        gpus=1,
    )
    assert SCRIPT.read_text() == script(fleet, options={"time": "4:00:00"}, program=("asktell",))


def test_a_fleet_is_over_when_nobody_runs_or_waits() -> None:
    assert Standing(done=2, failures=("broken",)).over
    assert not Standing(waiting=1).over


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_at_which_nobody_listens_is_said_at_once(scheme: str) -> None:
    with pytest.raises(Misplaced, match="no Ray at"):
        RayEngine(f"{scheme}127.0.0.1:{free_port()}").start(Fleet(study="s", arguments=("work",)))


def test_a_worker_is_not_started_where_its_directory_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no directory"):
        Placed(("work",), str(tmp_path / "missing")).run()


def test_a_worker_that_was_told_to_end_before_its_start_is_not_started(tmp_path: Path) -> None:
    placed = Placed(("work", "--no-such-option"), str(tmp_path))
    placed.end()
    assert placed.run().status == 0
