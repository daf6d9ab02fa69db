# SPDX-License-Identifier: GPL-3.0-or-later
"""Replaces gcloud, bq and curl in tests. Stores the created resources, responds from them, and records every call.

The state is kept between runs of a script. So a test can check that a second run finds the resources of the first run
and changes nothing. An unknown command is an error.

STUB_STATE      file with the created resources, as JSON
STUB_LOG        file to which every call is appended, as one line of shell
STUB_CALLS      file to which every call is appended, as JSON, for flags.py
STUB_DENY       calls that start with these words are refused because of a missing permission
STUB_FLAKY      number of policy bindings that fail before the first one succeeds
STUB_READY      number of the revision that is ready after a deployment; the newest revision is 00001
STUB_DIGEST     digest of the image at every tag; "none" means that there is no image
STUB_BUCKET_PROJECT  number of the project that owns the bucket, which then exists
STUB_RESPONSES  file with the responses to curl in order, a JSON list of [status, body]. Requests to Pub/Sub are answered
                from the state
STUB_PUBSUB_FAILS  requests to Pub/Sub whose address ends with this word are answered with status 503
STUB_GCLOUD, STUB_PUBSUB  path of the real gcloud and address of a Pub/Sub emulator. If they are set, the real gcloud
                creates, describes and updates topics and subscriptions in the emulator
"""

import json
import os
import re
import shlex
import sys
from pathlib import Path

NUMBER = "123456789012"
GROUPS = [
    "alpha monitoring policies", "artifacts docker images", "artifacts repositories", "auth", "beta services identity",
    "iam service-accounts", "logging", "projects", "pubsub schemas", "pubsub subscriptions",
    "pubsub topics", "run services", "run", "services", "storage buckets notifications",
    "storage buckets", "storage",
]

# The flag that sets each field of a subscription.
SUBSCRIPTION_FLAGS = {
    "pushConfig.pushEndpoint": "--push-endpoint",
    "pushConfig.oidcToken.serviceAccountEmail": "--push-auth-service-account",
    "pushConfig.oidcToken.audience": "--push-auth-token-audience",
    "bigqueryConfig.table": "--bigquery-table",
    "ackDeadlineSeconds": "--ack-deadline",
    "retryPolicy.minimumBackoff": "--min-retry-delay",
    "retryPolicy.maximumBackoff": "--max-retry-delay",
    "deadLetterPolicy.deadLetterTopic": "--dead-letter-topic",
    "deadLetterPolicy.maxDeliveryAttempts": "--max-delivery-attempts",
    "messageRetentionDuration": "--message-retention-duration",
}


def fail(message, code=1, stream=sys.stderr):
    print(message, file=stream)
    sys.exit(code)


def split(arguments):
    """Returns the positional words, and the values of the flags. A flag without a value has the value True."""
    words, flags = [], {}
    for argument in arguments:
        if argument.startswith("--"):
            name, _, value = argument.partition("=")
            flags[name] = value if "=" in argument else True
        else:
            words.append(argument)
    return words, flags


class State:
    """The created resources, which are stored in a file between calls."""

    def __init__(self):
        self.path = Path(os.environ["STUB_STATE"])
        kept = json.loads(self.path.read_text()) if self.path.exists() else {}
        # The flags with which each resource was created, by its kind and name.
        self.resources = kept.get("resources", {})
        # Each grant is a list of a resource, a role and a member.
        self.grants = kept.get("grants", [])
        self.apis = kept.get("apis", [])
        self.response_count = kept.get("response_count", 0)
        self.failed_binding_count = kept.get("failed_binding_count", 0)
        # Messages in the form of the API, by their acknowledgement id.
        self.dead_letters = kept.get("dead_letters", {})
        # Each entry is a list of a topic and a message.
        self.published = kept.get("published", [])

    def save(self):
        self.path.write_text(json.dumps({k: v for k, v in vars(self).items() if k != "path"}))

    def remove(self, key):
        del self.resources[key]
        self.grants = [grant for grant in self.grants if grant[0] != key]


def record_call(program, command, arguments):
    with open(os.environ["STUB_LOG"], "a") as log:
        log.write(shlex.join([program, *arguments]) + "\n")
    if program != "curl":
        flags = sorted({a.partition("=")[0] for a in arguments if a.startswith("--")})
        with open(os.environ["STUB_CALLS"], "a") as calls:
            calls.write(json.dumps({"program": program, "command": command, "flags": flags}) + "\n")


def describe(kind, name, flags, output_format):
    """Returns the output of `describe` for a resource that was created with these flags."""
    if kind == "projects":
        return NUMBER
    if kind == "storage buckets":
        return NUMBER if output_format == "value(projectNumber)" else f"name: {name}"
    if kind == "run services" and output_format == "value(status.url)":
        return f"https://{name}-{NUMBER}.us-central1.run.app"
    if kind == "run services":
        return f"{flags['--labels'].removeprefix('settings=')} {name}-00001 {name}-{flags['ready']}"
    if kind == "pubsub schemas" and output_format:
        return Path(flags["--definition-file"]).read_text()
    if kind == "pubsub subscriptions" and output_format:
        fields = re.search(r"\((.*)\)", output_format)[1].split(",")
        return "|".join(flags.get(SUBSCRIPTION_FLAGS[field], "") for field in fields)
    return f"name: {name}"


def gcloud(state, arguments):
    words, flags = split(arguments)
    line = " ".join(words)
    group = next((g for g in GROUPS if (line + " ").startswith(g + " ")), None)
    if group is None:
        fail(f"stub: unknown command: gcloud {line}", 2)
    verb, *names = words[len(group.split()):]
    record_call("gcloud", [*group.split(), verb], arguments)
    name = names[0] if names else ""
    kind = "run services" if group == "run" else group
    if kind == "iam service-accounts" and "@" not in name:
        name = f"{name}@{flags['--project']}.iam.gserviceaccount.com"
    key = f"{kind} {name}"

    denied = os.environ.get("STUB_DENY")
    if denied and line.startswith(denied):
        fail(f"ERROR: (gcloud) PERMISSION_DENIED: Permission denied on {name} (or it does not exist)")
    real = os.environ.get("STUB_GCLOUD")
    if real and kind in ("pubsub topics", "pubsub subscriptions") and verb in ("create", "describe", "update"):
        state.save()
        os.environ["CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB"] = os.environ["STUB_PUBSUB"]
        os.environ["CLOUDSDK_AUTH_DISABLE_CREDENTIALS"] = "true"
        os.execv(real, [real, *arguments])

    if (group, verb) == ("services", "list"):
        print("\n".join(state.apis))
    elif (group, verb) == ("services", "enable"):
        state.apis += names
    elif (group, verb) == ("beta services identity", "create"):
        pass
    elif (group, verb) == ("storage", "service-agent"):
        print(f"service-{NUMBER}@gs-project-accounts.iam.gserviceaccount.com")
    elif (group, verb) == ("storage", "rm"):
        state.remove(f"storage buckets {name}")
    elif group == "auth" and verb in ("print-identity-token", "print-access-token"):
        print("a-token")
    elif (group, verb) == ("logging", "read"):
        print("2026-01-02T00:00:01Z\tINFO\tclassify\tsecond\n2026-01-02T00:00:00Z\tINFO\tpreprocess\tfirst")
    elif kind == "artifacts docker images" and verb == "describe":
        digest = os.environ.get("STUB_DIGEST", "sha256:" + "a" * 64)
        if digest == "none":
            fail("ERROR: (gcloud.artifacts.docker.images.describe) Image not found.")
        print(digest)
    elif kind == "storage buckets" and verb == "describe" and "STUB_BUCKET_PROJECT" in os.environ:
        print(os.environ["STUB_BUCKET_PROJECT"])
    elif kind == "storage buckets notifications":
        notifications(state, verb, names, flags)
    elif kind == "alpha monitoring policies":
        alert_policies(state, verb, name, flags)
    elif verb == "get-iam-policy":
        for resource, role, member in state.grants:
            if resource == key:
                print(f"{role}\t{member}")
    elif verb == "add-iam-policy-binding":
        if state.failed_binding_count < int(os.environ.get("STUB_FLAKY", 0)):
            state.failed_binding_count += 1
            state.save()
            fail(f"ERROR: (gcloud) INVALID_ARGUMENT: {flags['--member']} does not exist.")
        state.grants.append([key, flags["--role"], flags["--member"]])
    elif verb in ("create", "deploy", "update", "commit"):
        if verb == "create" and key in state.resources:
            fail(f"ERROR: (gcloud) ALREADY_EXISTS: {key}")
        state.resources[key] = state.resources.get(key, {}) | flags | {"ready": os.environ.get("STUB_READY", "00001")}
    elif kind != "projects" and key not in state.resources:
        fail(f"ERROR: (gcloud) NOT_FOUND: Resource not found (resource={name}).")
    elif verb == "describe":
        print(describe(kind, name, state.resources.get(key, {}), flags.get("--format")))
    elif verb == "delete":
        state.remove(key)
    else:
        fail(f"stub: unknown command: gcloud {line}", 2)


def notifications(state, verb, names, flags):
    """Lists, creates or deletes notifications of a bucket."""
    entries = state.resources.setdefault("notifications", [])
    if verb == "list":
        print(json.dumps([{"Bucket URL": names[0], "Notification Configuration": entry} for entry in entries]))
    elif verb == "create":
        number = 1 + max((int(entry["id"]) for entry in entries), default=0)
        entries.append({
            "id": str(number),
            "object_name_prefix": flags["--object-prefix"],
            "topic": f"//pubsub.googleapis.com/projects/{flags['--project']}/topics/{flags['--topic']}",
        })
    elif verb == "delete":
        ids = [name.rpartition("/notificationConfigs/")[2] for name in names]
        state.resources["notifications"] = [entry for entry in entries if entry["id"] not in ids]
    else:
        fail(f"stub: unknown command: gcloud storage buckets notifications {verb}", 2)


def alert_policies(state, verb, name, flags):
    """Lists, creates, updates or deletes alert policies."""
    policies = state.resources.setdefault("policies", {})
    if verb == "list":
        print(json.dumps([{"name": name, **policy} for name, policy in policies.items()]))
    elif verb == "create":
        policies[f"projects/{flags['--project']}/alertPolicies/{len(policies) + 1}"] = json.loads(flags["--policy"])
    elif verb == "update" and name in policies:
        policies[name] = json.loads(flags["--policy"])
    elif verb == "delete" and name in policies:
        del policies[name]
    else:
        fail(f"stub: gcloud alpha monitoring policies {verb} {name}", 2)


def bq(state, arguments):
    words, flags = split(arguments)
    verb, name = words
    record_call("bq", [verb], arguments)
    key = f"bq {name}"
    if verb == "mk":
        state.resources[key] = flags
    elif key not in state.resources:
        # bq prints errors to stdout.
        fail(f"BigQuery error in {verb} operation: Not found: {name}", 2, sys.stdout)
    elif verb == "show":
        print(Path(state.resources[key]["--schema"]).read_text() if "--schema" in flags else name)
    elif verb == "update":
        state.resources[key] |= flags
    elif verb == "get-iam-policy":
        print(json.dumps({"bindings": [{"role": r, "members": [m]} for k, r, m in state.grants if k == key]}))
    elif verb == "add-iam-policy-binding":
        state.grants.append([key, flags["--role"], flags["--member"]])
    elif verb == "rm":
        # Tables have the name of their dataset as prefix, so they are removed, too.
        for resource in [resource for resource in state.resources if resource.startswith(key)]:
            state.remove(resource)
    else:
        fail(f"stub: unknown command: bq {verb}", 2)


def curl(state, arguments):
    record_call("curl", [], arguments)
    if arguments[-1].startswith("https://pubsub.googleapis.com/v1/"):
        status, body = pubsub(state, arguments[-1], arguments[arguments.index("--data-binary") + 1].removeprefix("@"))
        Path(arguments[arguments.index("--output") + 1]).write_text(json.dumps(body))
        print(status, end="")
        return
    status, body = json.loads(Path(os.environ["STUB_RESPONSES"]).read_text())[state.response_count]
    state.response_count += 1
    Path(arguments[arguments.index("--output") + 1]).write_text(body)
    print(status, end="")


def pubsub(state, url, body_file):
    """Returns the status and the body of the response to a request to Pub/Sub."""
    request = json.loads(Path(body_file).read_text())
    resource, _, method = url.removeprefix("https://pubsub.googleapis.com/v1/").rpartition(":")
    if method == os.environ.get("STUB_PUBSUB_FAILS"):
        return 503, {"error": {"status": "UNAVAILABLE"}}
    if method == "pull":
        # Pub/Sub may return fewer messages than requested.
        messages = list(state.dead_letters.items())[: min(3, request["maxMessages"])]
        return 200, {"receivedMessages": [{"ackId": key, "message": message} for key, message in messages]} if messages else {}
    if method == "publish":
        state.published += [[resource, message] for message in request["messages"]]
        return 200, {"messageIds": [str(number) for number in range(len(request["messages"]))]}
    if method == "acknowledge":
        for key in request["ackIds"]:
            del state.dead_letters[key]
        return 200, {}
    return fail(f"stub: unknown method of Pub/Sub: {method}", 2)


if __name__ == "__main__":
    state = State()
    {"gcloud": gcloud, "bq": bq, "curl": curl}[sys.argv[1]](state, sys.argv[2:])
    state.save()
