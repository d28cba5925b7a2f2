"""The Kubernetes manifests, as `kubectl kustomize` would give them: valid, complete, and true to the program."""

import kubernetes_validate
import pytest
import yaml

from kit.processes import ROOT
from sentryagent_idp.config import Settings

KUBERNETES = ROOT / "deploy" / "kubernetes"
VERSION = "1.34"
KNOWN = {"apiVersion", "kind", "namespace", "labels", "resources", "images", "patches"}
OVERLAYS = sorted((KUBERNETES / "overlays").iterdir())
INTERNAL = ("/metrics", "/docs", "/openapi.json", "/health", "/ready")


def _read(folder):
    """A kustomization and the manifests of its own folder."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert kustomization.keys() <= KNOWN, "this reader does not know all of it"
    return kustomization


def build(folder):
    """The manifests of a kustomization: its resources, with patches (RFC 6902), labels and images applied."""
    kustomization = _read(folder)
    manifests = []
    for name in kustomization["resources"]:
        path = folder / name
        manifests += build(path) if path.is_dir() else [yaml.safe_load(path.read_text())]
    for patch in kustomization.get("patches", ()):
        _apply(yaml.safe_load((folder / patch["path"]).read_text()), _target(manifests, patch["target"]))
    for image in kustomization.get("images", ()):
        _rename(manifests, image)
    for manifest in manifests:
        for labels in kustomization.get("labels", ()):
            manifest["metadata"].setdefault("labels", {}).update(labels["pairs"])
        if "namespace" in kustomization:
            manifest["metadata"]["namespace"] = kustomization["namespace"]
    return manifests


def _target(manifests, target):
    """The one manifest that a patch is for."""
    (found,) = [
        it for it in manifests if (it["kind"], it["metadata"]["name"]) == (target["kind"], target["name"])
    ]
    return found


def _apply(operations, manifest):
    assert operations
    for operation in operations:
        *parents, last = operation["path"].strip("/").split("/")
        place = manifest
        for part in parents:
            place = place[part]
        assert operation["op"] in {"add", "replace"}
        assert (last in place) == (operation["op"] == "replace"), operation["path"]
        place[last] = operation["value"]


def _rename(manifests, image):
    containers = [
        it for manifest in manifests for it in _containers(manifest) if it["image"] == image["name"]
    ]
    assert containers
    for container in containers:
        container["image"] = f"{image['newName']}:{image['newTag']}"


def _pod(manifest):
    return manifest.get("spec", {}).get("template", {})


def _containers(manifest):
    return _pod(manifest).get("spec", {}).get("containers", [])


def _only(manifests, kind):
    (found,) = [it for it in manifests if it["kind"] == kind]
    return found


def _labels(manifest):
    return _pod(manifest)["metadata"]["labels"].items()


@pytest.fixture(params=[KUBERNETES / "base", *OVERLAYS], ids=lambda folder: folder.name)
def manifests(request):
    return build(request.param)


def test_there_are_overlays():
    """A base alone is no deployment."""
    assert {folder.name for folder in OVERLAYS} == {"production", "staging"}


@pytest.mark.parametrize("folder", [KUBERNETES / "base", *OVERLAYS], ids=lambda folder: folder.name)
def test_every_file_is_part_of_its_kustomization(folder):
    """A manifest or a patch that nobody names would never be applied."""
    kustomization = _read(folder)
    named = {*kustomization["resources"], *(it["path"] for it in kustomization.get("patches", ()))}

    assert {path.name for path in folder.iterdir()} - {"kustomization.yaml"} <= named
    assert all((folder / name).exists() for name in named)


def test_the_cluster_would_take_them(manifests):
    """Each manifest fits the schema of its kind, without a member that the cluster would drop."""
    assert {it["kind"] for it in manifests} >= {
        "Deployment",
        "Service",
        "PodDisruptionBudget",
        "HorizontalPodAutoscaler",
        "Job",
        "NetworkPolicy",
    }
    for manifest in manifests:
        kubernetes_validate.validate(manifest, VERSION, strict=True)


def test_the_provider_takes_its_settings(manifests):
    """The names are settings of the provider, and the values are accepted."""
    data = _only(manifests, "ConfigMap")["data"]
    settings = Settings.from_environ({**data, "SENTRYAGENT_DATABASE_URL": "postgresql+psycopg://db/x"})

    assert {f"SENTRYAGENT_{name.upper()}" for name in Settings.model_fields} >= data.keys()
    assert settings.public_url.startswith("https://")
    (port,) = _containers(_only(manifests, "Deployment"))[0]["ports"]
    assert settings.port == port["containerPort"]


def test_secrets_are_referred_to_and_never_written(manifests):
    """No Secret with a value lies here, and no environment variable with one."""
    variables = [
        variable
        for manifest in manifests
        for container in _containers(manifest)
        for variable in container.get("env", ())
    ]

    assert "Secret" not in {it["kind"] for it in manifests}
    assert {it["name"] for it in variables} == {
        "SENTRYAGENT_DATABASE_URL",
        "SENTRYAGENT_KEY_ENCRYPTION_KEY",
        "SENTRYAGENT_KEY_ENCRYPTION_KEY_PREVIOUS",
    }
    assert all(it.keys() == {"name", "valueFrom"} and "secretKeyRef" in it["valueFrom"] for it in variables)


def test_whatever_points_at_the_pods_finds_them(manifests):
    """The selectors of Deployment, Service and budget are labels of the server's pods and not of the migration's."""
    server, migration = _only(manifests, "Deployment"), _only(manifests, "Job")
    selectors = [
        server["spec"]["selector"]["matchLabels"],
        _only(manifests, "Service")["spec"]["selector"],
        _only(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
    ]

    for selector in selectors:
        assert selector.items() <= _labels(server)
        assert not selector.items() <= _labels(migration)
    everybody = _only(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    assert everybody.items() <= _labels(server) & _labels(migration)
    target = _only(manifests, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", server["metadata"]["name"])
    assert "replicas" not in server["spec"], "the autoscaler has the number"


def test_a_disruption_leaves_a_replica(manifests):
    """The budget is smaller than the least number of replicas, so that a node can be drained at all."""
    budget = _only(manifests, "PodDisruptionBudget")["spec"]["minAvailable"]

    assert 0 < budget < _only(manifests, "HorizontalPodAutoscaler")["spec"]["minReplicas"]


def test_containers_may_do_nothing_but_their_work(manifests):
    """No root, no writable image, no privilege, no token of the cluster's."""
    workloads = [it for it in manifests if _containers(it)]
    assert len(workloads) == 2
    for workload in workloads:
        pod = _pod(workload)["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]


def test_a_stop_is_given_the_time_that_it_takes(manifests):
    """The grace period covers the wait before the stop and the requests in flight."""
    pod = _pod(_only(manifests, "Deployment"))["spec"]
    waiting = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])

    assert pod["terminationGracePeriodSeconds"] >= waiting + 30


def test_probes_ask_paths_that_exist(manifests, provider_paths):
    """Liveness asks the process alone: an outage of the database must restart nothing."""
    container = _containers(_only(manifests, "Deployment"))[0]
    paths = {name: container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")}

    assert paths == {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready"}
    assert set(paths.values()) <= provider_paths


@pytest.fixture(scope="session")
def provider_paths():
    from sentryagent_idp.app import bare_app

    return {rule.rule for rule in bare_app().url_map.iter_rules()}


def test_only_what_clients_need_is_routed(provider_paths):
    """Every public path has a route, and no internal one."""
    (host,) = _only(build(KUBERNETES / "overlays" / "production"), "Ingress")["spec"]["rules"]
    prefixes = tuple(path["path"] for path in host["http"]["paths"])

    routed = {path for path in provider_paths if path.startswith(prefixes)}
    assert provider_paths - routed == set(INTERNAL)
