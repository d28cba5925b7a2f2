"""The Kubernetes manifests, as built by `kubectl kustomize`: valid, complete and consistent with the program."""

import re
import shutil

import kubernetes_validate
import pytest
import yaml

from kit.processes import ROOT, output_of
from sentryagent_idp import serve
from sentryagent_idp.cli.main import main
from sentryagent_idp.config import Settings

KUBERNETES = ROOT / "deploy" / "kubernetes"
VERSION = "1.34"
KNOWN = {"apiVersion", "kind", "namespace", "labels", "configMapGenerator", "resources", "images", "patches"}
OVERLAYS = sorted((KUBERNETES / "overlays").iterdir())
GENERATED = "sentryagent-idp-hash"
"""Stands for the name that kustomize generates from a ConfigMap's name and content."""
PRODUCTION = KUBERNETES / "overlays" / "production"
INTERNAL = ("/metrics", "/docs", "/openapi.json", "/health", "/ready")


def _read(folder):
    """A folder's kustomization."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert kustomization.keys() <= KNOWN, "this reader does not know all of it"
    return kustomization


def build(folder):
    """The manifests of a kustomization: its resources, with ConfigMaps, patches (RFC 6902), labels and images applied."""
    kustomization = _read(folder)
    manifests = []
    for name in kustomization["resources"]:
        path = folder / name
        manifests += build(path) if path.is_dir() else [yaml.safe_load(path.read_text())]
    for settings in kustomization.get("configMapGenerator", ()):
        _generate(manifests, folder, settings)
    for patch in kustomization.get("patches", ()):
        _apply(yaml.safe_load((folder / patch["path"]).read_text()), _target(manifests, patch["target"]))
    for image in kustomization.get("images", ()):
        _rename(manifests, image)
    for manifest in manifests:
        for labels in kustomization.get("labels", ()):
            manifest["metadata"].setdefault("labels", {}).update(labels["pairs"])
        if "namespace" in kustomization:
            is_namespace = manifest["kind"] == "Namespace"
            manifest["metadata"]["name" if is_namespace else "namespace"] = kustomization["namespace"]
    return manifests


def _generate(manifests, folder, settings):
    """Generate a ConfigMap from `NAME=value` lines and update the references to it, or merge lines into the existing one."""
    assert settings.keys() <= {"name", "envs", "behavior"}
    lines = [line for name in settings["envs"] for line in (folder / name).read_text().splitlines()]
    data = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    if settings.get("behavior") == "merge":
        _only(manifests, "ConfigMap")["data"].update(data)
        return
    metadata = {"name": GENERATED}
    manifests.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    for source in (it for manifest in manifests for it in _sources(manifest)):
        source["name"] = source["name"].replace(settings["name"], GENERATED)


def _sources(manifest):
    """The references to ConfigMaps in the containers' `envFrom`."""
    return [it["configMapRef"] for container in _containers(manifest) for it in container.get("envFrom", ())]


def _target(manifests, target):
    """The manifest that a patch is for."""
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
    spec = _pod(manifest).get("spec", {})
    return [*spec.get("containers", []), *spec.get("initContainers", [])]


def _only(manifests, kind):
    (found,) = [it for it in manifests if it["kind"] == kind]
    return found


def _labels(manifest):
    return _pod(manifest)["metadata"]["labels"].items()


@pytest.fixture(params=[KUBERNETES / "base", *OVERLAYS], ids=lambda folder: folder.name)
def manifests(request):
    return build(request.param)


def test_there_are_overlays():
    """There is an overlay for production and one for staging."""
    assert {folder.name for folder in OVERLAYS} == {"production", "staging"}


@pytest.mark.parametrize("folder", [KUBERNETES / "base", *OVERLAYS], ids=lambda folder: folder.name)
def test_every_file_is_part_of_its_kustomization(folder):
    """Every file is named in its kustomization, because others would never be applied."""
    kustomization = _read(folder)
    settings = {name for it in kustomization.get("configMapGenerator", ()) for name in it["envs"]}
    patches = {it["path"] for it in kustomization.get("patches", ())}
    named = {*kustomization["resources"], *patches, *settings}

    assert {path.name for path in folder.iterdir()} - {"kustomization.yaml"} <= named
    assert all((folder / name).exists() for name in named)


def test_the_cluster_would_take_them(manifests):
    """Each manifest is valid for its kind's schema, without unknown fields, which the cluster would drop."""
    assert {it["kind"] for it in manifests} >= {
        "Deployment",
        "Service",
        "PodDisruptionBudget",
        "HorizontalPodAutoscaler",
        "Namespace",
        "NetworkPolicy",
    }
    for manifest in manifests:
        # The Gateway API is not part of Kubernetes' own schemas.
        if not manifest["apiVersion"].startswith("gateway."):
            kubernetes_validate.validate(manifest, VERSION, strict=True)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl on PATH")
@pytest.mark.parametrize("folder", OVERLAYS, ids=lambda folder: folder.name)
def test_kustomize_builds_the_same(folder):
    """The tests' `build` gives the same result as kustomize, except for the hash in the name."""
    text = output_of("kubectl", "kustomize", folder)
    built = yaml.safe_load_all(re.sub(r"sentryagent-idp-[a-z0-9]{10}\b", GENERATED, text))

    assert _by_kind(built) == _by_kind(build(folder))


def _by_kind(manifests):
    return sorted(manifests, key=lambda it: it["kind"])


def test_a_changed_setting_replaces_the_pods(manifests):
    """The ConfigMap's name depends on its content, and the pods refer to it."""
    name = _only(manifests, "ConfigMap")["metadata"]["name"]

    assert name == GENERATED
    assert _sources(_only(manifests, "Deployment")) == [{"name": name}]


@pytest.mark.parametrize("folder", OVERLAYS, ids=lambda folder: folder.name)
def test_everything_is_in_the_namespace_that_is_created(folder):
    """Every manifest is in the created namespace, so the first `kubectl apply -k` succeeds."""
    manifests = build(folder)
    created = _only(manifests, "Namespace")
    (namespace,) = {it["metadata"]["namespace"] for it in manifests if it is not created}

    assert created["metadata"] == {"name": namespace, "labels": created["metadata"]["labels"]}


def test_migrations_run_before_a_pod_serves(manifests):
    """Migrations run in an init container, which has no probe that could stop it."""
    (migrate,) = _pod(_only(manifests, "Deployment"))["spec"]["initContainers"]

    assert migrate["args"][0] in main.commands
    assert not [name for name in migrate if name.endswith("Probe")]
    assert [it["name"] for it in migrate["env"]] == ["SENTRYAGENT_DATABASE_URL"]


def test_no_service_writes_variables_into_the_pods(manifests):
    """Service links are off: their variables would start like our settings, because of the Service's name."""
    assert _pod(_only(manifests, "Deployment"))["spec"]["enableServiceLinks"] is False


def test_the_provider_takes_its_settings(manifests):
    """The ConfigMap has only settings of the provider, with valid values."""
    data = _only(manifests, "ConfigMap")["data"]
    settings = Settings.from_environ({**data, "SENTRYAGENT_DATABASE_URL": "postgresql+psycopg://db/x"})

    assert {f"SENTRYAGENT_{name.upper()}" for name in Settings.model_fields} >= data.keys()
    assert settings.public_url.startswith("https://")
    (port,) = _containers(_only(manifests, "Deployment"))[0]["ports"]
    assert settings.port == port["containerPort"]


def test_secrets_are_referred_to_and_never_written(manifests):
    """There is no Secret manifest, and all secret variables refer to a Secret."""
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
    """The selectors of the Deployment, Service, budget and network policy match the pods' labels."""
    server = _only(manifests, "Deployment")
    selectors = [
        server["spec"]["selector"]["matchLabels"],
        _only(manifests, "Service")["spec"]["selector"],
        _only(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        _only(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]

    for selector in selectors:
        assert selector.items() <= _labels(server)
    target = _only(manifests, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", server["metadata"]["name"])
    assert "replicas" not in server["spec"], "the autoscaler has the number"


def test_a_disruption_leaves_a_replica(manifests):
    """The budget is smaller than the minimum number of replicas, so that a node can be drained."""
    budget = _only(manifests, "PodDisruptionBudget")["spec"]["minAvailable"]

    assert 0 < budget < _only(manifests, "HorizontalPodAutoscaler")["spec"]["minReplicas"]


def test_containers_may_do_nothing_but_their_work(manifests):
    """Containers run without root, write access to the image, privileges and a service account token."""
    (workload,) = [it for it in manifests if _containers(it)]
    pod = _pod(workload)["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    for container in _containers(workload):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
    labels = _only(manifests, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_a_stop_is_given_the_time_that_it_takes(manifests):
    """The grace period covers the `preStop` wait and the requests in flight."""
    pod = _pod(_only(manifests, "Deployment"))["spec"]
    waiting = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])

    assert pod["terminationGracePeriodSeconds"] > waiting + serve._DRAIN_SECONDS


def test_probes_ask_paths_that_exist(manifests, provider_paths):
    """The liveness probe checks only the process, because a database outage must not restart pods."""
    container = _containers(_only(manifests, "Deployment"))[0]
    paths = {name: container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")}

    assert paths == {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready"}
    assert set(paths.values()) <= provider_paths


@pytest.fixture(scope="session")
def provider_paths():
    from sentryagent_idp.app import bare_app

    return {rule.rule for rule in bare_app().url_map.iter_rules()}


def test_only_what_clients_need_is_routed(provider_paths):
    """Exactly the public paths have a route."""
    (rule,) = _only(build(PRODUCTION), "HTTPRoute")["spec"]["rules"]
    prefixes = tuple(match["path"]["value"] for match in rule["matches"])
    assert {match["path"]["type"] for match in rule["matches"]} == {"PathPrefix"}

    routed = {path for path in provider_paths if path.startswith(prefixes)}
    assert provider_paths - routed == set(INTERNAL)


def test_the_route_leads_from_the_gateway_to_the_provider():
    """The route's host is the provider's URL, its backend the Service, and the network policy admits the gateway."""
    manifests = build(PRODUCTION)
    route, service = _only(manifests, "HTTPRoute"), _only(manifests, "Service")
    (gateway,) = route["spec"]["parentRefs"]
    ((backend,),) = [rule["backendRefs"] for rule in route["spec"]["rules"]]
    url = _only(manifests, "ConfigMap")["data"]["SENTRYAGENT_PUBLIC_URL"]
    sources = _only(manifests, "NetworkPolicy")["spec"]["ingress"][0]["from"]

    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert [f"https://{name}" for name in route["spec"]["hostnames"]] == [url]
    assert backend == {"name": service["metadata"]["name"], "port": service["spec"]["ports"][0]["port"]}
    assert {"kubernetes.io/metadata.name": gateway["namespace"]} in [
        it["namespaceSelector"]["matchLabels"] for it in sources
    ]
