"""Holds deploy/helm/session-invite against Helm's own linter and Kubernetes' schemas, and what it promises. `./dev check chart`
starts it, with the SDK of Helm 4 and the schemas from PyPI.
"""

import json
import sys

import helm_python.chart as helm
import kubernetes_validate
import yaml

CHART = "deploy/helm/session-invite"
SETTINGS = {"PUBLIC_URL": "https://invite.example", "TWILIO_ACCOUNT_SID": "AC1", "SMS_FROM": "+15005550006"}
EVERYTHING = {
    "settings": {"all": SETTINGS, "worker": {"PREFETCH": 100}, "gateway": {"GATEWAY_TIMEOUT": "30s"}},
    "ingress": {"enabled": True},
    "monitoring": {"enabled": True, "labels": {"release": "prometheus"}},
    "keda": {"enabled": True},
    "caConfigMap": "own-ca",
    "imagePullSecrets": [{"name": "registry"}],
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "a", "operator": "Exists"}],
    "networkPolicy": {"metricsFrom": [{"namespaceSelector": {}}], "gatewayFrom": [{"podSelector": {}}]},
}
LEAST = {"settings": {"all": SETTINGS}, "migrate": {"enabled": False}, "networkPolicy": {"enabled": False},
         "podDisruptionBudget": {"enabled": False}}
VERSIONS = ["1.30", "1.37"]
WARNING = 2
# Kinds of other projects, whose schemas are not in Kubernetes.
OTHERS = {"ServiceMonitor", "PrometheusRule", "ScaledObject", "TriggerAuthentication"}


def render(values):
    """The rendered resources, by kind and name."""
    with helm.Chart.load(CHART) as chart:
        rendered = chart.render(values=values, name="session-invite", namespace="invites")
    texts = rendered.values() if isinstance(rendered, dict) else [rendered]
    resources = [it for text in texts for it in yaml.safe_load_all(text) if it]
    return {(it["kind"], it["metadata"]["name"]): it for it in resources}


def pods(resources):
    for (kind, name), it in resources.items():
        if kind in ("Deployment", "Job"):
            yield name, it["spec"]["template"]["spec"]


def check_pod(name, pod):
    assert pod["automountServiceAccountToken"] is False, name
    assert pod["securityContext"]["runAsNonRoot"] is True, name
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", name
    for container in pod["containers"] + pod.get("initContainers", []):
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True and security["capabilities"]["drop"] == ["ALL"], name
        assert security["allowPrivilegeEscalation"] is False, name
        assert container["resources"]["limits"]["memory"], name
        env = {it["name"]: it["value"] for it in container["env"]}
        secret = {"DATABASE_URL", "AMQP_URL", "SECRETS_KEY", "TWILIO_AUTH_TOKEN"} & env.keys()
        assert not secret, f"{name}: {secret} are no files"
        assert len(env) == len(container["env"]), f"{name}: a setting is there twice"
        assert env["PUBLIC_URL"] == SETTINGS["PUBLIC_URL"], name
        if "SHUTDOWN_GRACE" in env:
            assert pod["terminationGracePeriodSeconds"] > int(env["SHUTDOWN_GRACE"][:-1]) + 5, name
            for probe in ("readinessProbe", "livenessProbe"):
                assert container[probe]["httpGet"]["port"] == "operators", name


def main():
    for values in (EVERYTHING, LEAST):
        linted = helm.lint(CHART, values=values, strict=True)
        bad = [it for it in linted["messages"] if it["severity"] >= WARNING]
        assert not bad and not linted["errors"], json.dumps(linted, indent=2)
        resources = render(values)
        for it in resources.values():
            if it["kind"] in OTHERS:
                continue
            for version in VERSIONS:
                kubernetes_validate.validate(it, version, strict=True)
        for name, pod in pods(resources):
            check_pod(name, pod)
        print(f"{len(resources)} resources: {', '.join(sorted({kind for kind, _ in resources}))}")
    everything = render(EVERYTHING)
    assert OTHERS <= {kind for kind, _ in everything}, everything.keys()
    alerts = everything[("PrometheusRule", "session-invite")]["spec"]["groups"][0]["rules"]
    with open("deploy/prometheus/rules.yml", encoding="utf-8") as rules:
        assert alerts == yaml.safe_load(rules)["groups"][0]["rules"], "the alerts are others"
    assert "replicas" not in everything[("Deployment", "session-invite-worker")]["spec"], "KEDA sets them"
    paths = everything[("Ingress", "session-invite")]["spec"]["rules"][0]["http"]["paths"]
    assert not any("/console".startswith(it["path"]) for it in paths), "the console is for operators only"


if __name__ == "__main__":
    sys.exit(main())
