# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands in for gcloud, bq and curl: remembers what was made, answers from that, records every call.

A second run of a script sees what its first run made and nothing else, so "changes nothing the second
time" is a real question here and not a canned answer. A command it does not know is an error.

STUB_STATE   file that the made things are kept in, as JSON
STUB_LOG     file that every call is added to, as one line of shell
STUB_CALLS   file that every call is added to, as JSON, for flags.py
STUB_DENY    a call that starts with these words is refused for a missing permission
STUB_FLAKY   so many bindings fail before the first succeeds
STUB_READY   number of the revision that is ready after a deployment; 00001 is the newest
STUB_DIGEST  digest that every image tag points at; "none": there is no image
STUB_ANSWERS file with curl's answers, a JSON list of [status, body], served in order
STUB_GCLOUD, STUB_PUBSUB  the real gcloud and the address of a Pub/Sub emulator: topics and
             subscriptions are then made and described by these two
"""

import json
import os
import shlex
import sys
from pathlib import Path

NUMBER = "123456789012"
GROUPS = [
    "artifacts docker images", "artifacts repositories", "auth", "beta services identity",
    "iam service-accounts", "logging", "projects", "pubsub schemas", "pubsub subscriptions",
    "pubsub topics", "run services", "run", "services", "storage buckets notifications",
    "storage buckets", "storage",
]


def fail(message, code=1, stream=sys.stderr):
    print(message, file=stream)
    sys.exit(code)


def split(arguments):
    """Positional words and flags; a flag without a value maps to True."""
    words, flags = [], {}
    for argument in arguments:
        if argument.startswith("--"):
            name, _, value = argument.partition("=")
            flags[name] = value if "=" in argument else True
        else:
            words.append(argument)
    return words, flags


class State:
    def __init__(self):
        self.path = Path(os.environ["STUB_STATE"])
        kept = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.things = kept.get("things", {})
        self.grants = kept.get("grants", [])
        self.apis = kept.get("apis", [])
        self.answered = kept.get("answered", 0)
        self.failed = kept.get("failed", 0)

    def save(self):
        self.path.write_text(json.dumps({k: v for k, v in vars(self).items() if k != "path"}))

    def remove(self, key):
        del self.things[key]
        self.grants = [grant for grant in self.grants if grant[0] != key]


def record(program, command, arguments):
    with open(os.environ["STUB_LOG"], "a") as log:
        log.write(shlex.join([program, *arguments]) + "\n")
    if program != "curl":
        flags = sorted({a.partition("=")[0] for a in arguments if a.startswith("--")})
        with open(os.environ["STUB_CALLS"], "a") as calls:
            calls.write(json.dumps({"program": program, "command": command, "flags": flags}) + "\n")


def described(kind, name, flags, wanted):
    """What `describe --format=value(…)` prints of a thing that was made with these flags."""
    if kind == "projects":
        return NUMBER
    if kind == "run services" and wanted == "value(status.url)":
        return f"https://{name}-{NUMBER}.us-central1.run.app"
    if kind == "run services":
        return f"{flags['--labels'].removeprefix('settings=')} {name}-00001 {name}-{flags['ready']}"
    if kind == "pubsub schemas" and wanted:
        return Path(flags["--definition-file"]).read_text()
    if kind == "pubsub subscriptions" and wanted:
        names = ["--push-endpoint", "--push-auth-service-account", "--push-auth-token-audience",
                 "--ack-deadline", "--min-retry-delay", "--max-retry-delay", "--dead-letter-topic",
                 "--max-delivery-attempts"]
        return " ".join(flags.get(name, "") for name in names)
    return f"name: {name}"


def gcloud(state, arguments):
    words, flags = split(arguments)
    line = " ".join(words)
    group = next((g for g in GROUPS if (line + " ").startswith(g + " ")), None)
    if group is None:
        fail(f"stub: unknown command: gcloud {line}", 2)
    verb, *names = words[len(group.split()):]
    record("gcloud", [*group.split(), verb], arguments)
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
    elif (group, verb) == ("auth", "print-identity-token"):
        print("a-token")
    elif (group, verb) == ("logging", "read"):
        print("2026-01-02T00:00:01Z\tINFO\tclassify\tsecond\n2026-01-02T00:00:00Z\tINFO\tpreprocess\tfirst")
    elif kind == "artifacts docker images" and verb == "describe":
        digest = os.environ.get("STUB_DIGEST", "sha256:" + "a" * 64)
        if digest == "none":
            fail("ERROR: (gcloud.artifacts.docker.images.describe) Image not found.")
        print(digest)
    elif kind == "storage buckets notifications" and verb == "list":
        topic = state.things.get(key, {}).get("--topic")
        print(json.dumps([{"topic": f"//pubsub.googleapis.com/projects/p/topics/{topic}"}] if topic else []))
    elif verb == "get-iam-policy":
        for thing, role, member in state.grants:
            if thing == key:
                print(f"{role}\t{member}")
    elif verb == "add-iam-policy-binding":
        if state.failed < int(os.environ.get("STUB_FLAKY", 0)):
            state.failed += 1
            state.save()
            fail(f"ERROR: (gcloud) INVALID_ARGUMENT: {flags['--member']} does not exist.")
        state.grants.append([key, flags["--role"], flags["--member"]])
    elif verb in ("create", "deploy", "update", "commit"):
        if verb == "create" and key in state.things:
            fail(f"ERROR: (gcloud) ALREADY_EXISTS: {key}")
        state.things[key] = state.things.get(key, {}) | flags | {"ready": os.environ.get("STUB_READY", "00001")}
    elif kind != "projects" and key not in state.things:
        fail(f"ERROR: (gcloud) NOT_FOUND: Resource not found (resource={name}).")
    elif verb == "describe":
        print(described(kind, name, state.things.get(key, {}), flags.get("--format")))
    elif verb == "delete":
        state.remove(key)
    else:
        fail(f"stub: unknown command: gcloud {line}", 2)


def bq(state, arguments):
    words, flags = split(arguments)
    verb, name = words
    record("bq", [verb], arguments)
    key = f"bq {name}"
    if verb == "mk":
        state.things[key] = flags
    elif key not in state.things:
        # bq tells of errors on stdout.
        fail(f"BigQuery error in {verb} operation: Not found: {name}", 2, sys.stdout)
    elif verb == "show":
        print(Path(state.things[key]["--schema"]).read_text() if "--schema" in flags else name)
    elif verb == "update":
        state.things[key] |= flags
    elif verb == "get-iam-policy":
        print(json.dumps({"bindings": [{"role": r, "members": [m]} for k, r, m in state.grants if k == key]}))
    elif verb == "add-iam-policy-binding":
        state.grants.append([key, flags["--role"], flags["--member"]])
    elif verb == "rm":
        for thing in [thing for thing in state.things if thing.startswith(key)]:
            state.remove(thing)
    else:
        fail(f"stub: unknown command: bq {verb}", 2)


def curl(state, arguments):
    record("curl", [], arguments)
    status, body = json.loads(Path(os.environ["STUB_ANSWERS"]).read_text())[state.answered]
    state.answered += 1
    Path(arguments[arguments.index("--output") + 1]).write_text(body)
    print(status, end="")


if __name__ == "__main__":
    kept = State()
    {"gcloud": gcloud, "bq": bq, "curl": curl}[sys.argv[1]](kept, sys.argv[2:])
    kept.save()
