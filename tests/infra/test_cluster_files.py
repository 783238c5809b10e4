"""The files that bring a cluster up: each as far as it can be looked at without a cloud."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from deep_piano.cli.main import main
from deep_piano.config.load import load_config

ROOT = Path(__file__).parents[2]
FILES = ROOT / "cluster"


@pytest.fixture
def ray_up():
    return yaml.safe_load((FILES / "ray-up-aws.yaml").read_text())


@pytest.fixture
def kuberay():
    return yaml.safe_load((FILES / "kuberay-cluster.yaml").read_text())


TEXT, TEXTS = {"type": "string"}, {"type": "object", "additionalProperties": {"type": "string"}}
COUNT = {"type": "integer", "minimum": 0}


def fields(**known):
    """Return the schema of an object that has these fields and no others."""
    return {
        "type": "object",
        "properties": known,
        "required": list(known),
        "additionalProperties": False,
    }


# The fields of KubeRay's API that the files use, as its reference of ray.io/v1 has them; another
# one is a slip until it is found there and put here. What is in a pod is Kubernetes' own.
POD = fields(spec={"type": "object"})
GROUP = {"rayStartParams": TEXTS, "template": POD}
SPECS = {
    "RayCluster": fields(
        rayVersion=TEXT,
        authOptions=fields(mode={"enum": ["disabled", "token"]}),
        enableInTreeAutoscaling={"type": "boolean"},
        autoscalerOptions=fields(idleTimeoutSeconds=COUNT),
        headGroupSpec=fields(
            serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]}, **GROUP
        ),
        workerGroupSpecs={
            "type": "array",
            "items": fields(
                groupName=TEXT, replicas=COUNT, minReplicas=COUNT, maxReplicas=COUNT, **GROUP
            ),
        },
    ),
    "RayJob": fields(clusterSelector=TEXTS, entrypoint=TEXT),
}


def require_kuberay(tree):
    from jsonschema import validate

    name = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
    version, kind = {"const": "ray.io/v1"}, {"const": tree["kind"]}
    described, spec = fields(name=name), SPECS[tree["kind"]]
    validate(tree, fields(apiVersion=version, kind=kind, metadata=described, spec=spec))


def test_kuberay_takes_its_files(kuberay):
    from jsonschema import ValidationError

    require_kuberay(yaml.safe_load((FILES / "kuberay-job.yaml").read_text()))
    require_kuberay(kuberay)
    kuberay["spec"]["workerGroupSpecs"][0]["maxReplica"] = 3
    with pytest.raises(ValidationError, match="maxReplica"):
        require_kuberay(kuberay)


@pytest.mark.parametrize("version", ["1.31", "1.37"])
def test_kubernetes_takes_the_pods(kuberay, version):
    import kubernetes_validate

    def pod(spec):
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec}

    for spec in pods(kuberay):
        kubernetes_validate.validate(pod(spec), version, strict=True)
        spec["containers"][0]["imagePulPolicy"] = "Always"
        with pytest.raises(kubernetes_validate.ValidationError, match="imagePulPolicy"):
            kubernetes_validate.validate(pod(spec), version, strict=True)


def test_hadolint_finds_nothing_in_the_dockerfile(tmp_path):
    def linted(path):
        command = [Path(sys.executable).with_name("hadolint"), "--no-color", path]
        return subprocess.run(command, check=False, capture_output=True, text=True)

    run = linted(FILES / "Dockerfile")
    assert (run.returncode, run.stdout) == (0, ""), run.stdout
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN cd /tmp\n")
    assert "DL3006" in linted(tmp_path / "Dockerfile").stdout


def test_ray_takes_its_cluster_file(ray_up):
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(ray_up))  # Ray's own schema, with its defaults for AWS
    ray_up["max_wrokers"] = 3
    with pytest.raises(ValidationError, match="max_wrokers"):
        validate_config(prepare_config(ray_up))


def test_workers_begin_at_zero_and_leave_when_idle(ray_up, kuberay):
    types = ray_up["available_node_types"]
    workers = {name: node for name, node in types.items() if name != ray_up["head_node_type"]}
    assert all(node["min_workers"] == 0 for node in workers.values())
    assert ray_up["idle_timeout_minutes"] <= 10
    assert types["head"]["resources"]["CPU"] == 0
    assert sum(node["max_workers"] for node in workers.values()) <= ray_up["max_workers"]
    spot = [name for name, node in types.items() if "InstanceMarketOptions" in node["node_config"]]
    assert spot == ["cpu"]
    groups = {group["groupName"]: group for group in kuberay["spec"]["workerGroupSpecs"]}
    assert set(groups) == {"cpu", "gpu"}
    assert all(group["minReplicas"] == group["replicas"] == 0 for group in groups.values())
    assert kuberay["spec"]["enableInTreeAutoscaling"] is True


def test_profile_cluster_fits_the_gpu_nodes(ray_up, kuberay):
    train = load_config(ROOT / "ray_config.yaml", profile="cluster").train
    gpu = ray_up["available_node_types"]["gpu"]
    assert gpu["max_workers"] * gpu["resources"]["GPU"] >= train.workers * train.gpus_per_worker
    group = kuberay["spec"]["workerGroupSpecs"][1]
    assert group["maxReplicas"] >= train.workers * train.gpus_per_worker
    assert train.nodes_within_seconds > 0  # or they would never come


def test_profile_cluster_fits_the_cpu_nodes(ray_up, kuberay):
    bulk = load_config(ROOT / "ray_config.yaml", profile="cluster").bulk
    cpus = 8 * bulk.workers
    cpu = ray_up["available_node_types"]["cpu"]
    assert cpu["max_workers"] * cpu["resources"]["CPU"] >= cpus
    group = kuberay["spec"]["workerGroupSpecs"][0]
    container = group["template"]["spec"]["containers"][0]
    assert group["maxReplicas"] * int(container["resources"]["limits"]["cpu"]) >= cpus


def test_the_token_is_asked_for_everywhere_and_stands_in_no_file(ray_up, kuberay):
    options = ray_up["docker"]["run_options"]
    assert "--env RAY_AUTH_MODE=token" in options
    path = next(o for o in options if "RAY_AUTH_TOKEN_PATH" in o).rpartition("=")[2]
    assert path in ray_up["file_mounts"]
    head = ray_up["head_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in shlex.split(head)
    assert kuberay["spec"]["authOptions"] == {"mode": "token"}
    assert kuberay["spec"]["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert "RAY_AUTH_MODE=token" in (FILES / "Dockerfile").read_text()
    for file in FILES.iterdir():
        assert not re.search(r"AKIA|aws_secret|RAY_AUTH_TOKEN=[0-9a-f]", file.read_text()), (
            file.name
        )


def pods(tree):
    """Yield every pod of a manifest."""
    spec = tree["spec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        yield group["template"]["spec"]


def test_containers_run_without_root_and_with_limits(kuberay):
    for pod in pods(kuberay):
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["resources"]["limits"] == container["resources"]["requests"]
            assert {"cpu", "memory"} <= set(container["resources"]["limits"])


def test_ray_is_the_version_that_is_installed(kuberay):
    pinned = re.search(r"^ray==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert kuberay["spec"]["rayVersion"] == pinned[1]


def test_the_job_runs_a_command_that_can_be_understood(kuberay):
    job = yaml.safe_load((FILES / "kuberay-job.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == (kuberay["apiVersion"], "RayJob")
    assert job["spec"]["clusterSelector"]["ray.io/cluster"] == kuberay["metadata"]["name"]
    python, _, module, *arguments = shlex.split(job["spec"]["entrypoint"])
    assert python == "python"
    assert (ROOT / f"{module.replace('.', '/')}.py").is_file()
    command = main.commands[module.removeprefix("jobs.")]
    context = command.make_context("job", list(arguments))
    load_config(ROOT / context.params["config"], profile=context.params["profile"])


def copied(stages):
    """Return the names that stages of a Dockerfile copy from the repository."""
    copies = re.findall(r"^COPY (?:--chown=\S+ )?(?!--from)(.+) \S+$", stages, re.MULTILINE)
    return [name for names in copies for name in names.split()]


def lacking(needed, given):
    """Return the files needed that are neither in a list of names nor in a folder of it."""
    return [name for name in needed if not {name, *map(str, Path(name).parents)} & {*given}]


def let_through():
    return [line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line[0] == "!"]


def test_the_images_have_all_that_the_package_is_built_of():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    about, hatch = project["project"], project["tool"]["hatch"]
    wheel = hatch["build"]["targets"]["wheel"]
    needed = [about["readme"], *about["license-files"], hatch["version"]["path"]]
    needed += ["pyproject.toml", *wheel["packages"], *wheel["force-include"]]
    first, *_ = (FILES / "Dockerfile").read_text().partition("\nRUN uv pip install")
    assert lacking(needed, copied(first)) == []
    assert lacking(needed, let_through()) == []


def test_the_images_copy_what_is_there_and_end_without_root():
    text = (FILES / "Dockerfile").read_text()
    assert all((ROOT / name).exists() for name in copied(text))
    assert lacking(copied(text), let_through()) == []
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", text, re.MULTILINE)
    assert {"cpu", "cuda"} <= {name for _, name in stages}
    assert dict((name, of) for of, name in stages)["cpu"] == "base"
    base = text[text.index(" AS base") : text.index(" AS cuda")]
    [user] = re.findall(r"^USER (\S+)$", base, re.MULTILINE)
    assert f"--uid {user} " in base
    assert len(re.findall(r"^USER ", text, re.MULTILINE)) == 1


def test_jobs_are_short_and_call_the_command_line():
    for path in (ROOT / "jobs").glob("[a-z]*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 50
        assert CliRunner().invoke(main, [path.stem, "--help"]).exit_code == 0
