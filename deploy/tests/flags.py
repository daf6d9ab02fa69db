# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that the installed gcloud and bq know every command and flag that the scripts use.

Usage: flags.py CALLS CACHE [README]
CALLS   what stub.py recorded: one JSON object a line
CACHE   folder that the help texts are kept in; gcloud takes a second or more for each
README  a Markdown file: the gcloud and bq commands in its ```sh blocks are checked as well

Prints a line for each distinct command, exits 1 if any of them is not known.
"""

import hashlib
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def from_readme(text):
    """Commands in the ```sh blocks, in the form that stub.py records."""
    for block in re.findall(r"^ *```sh\n(.*?)^ *```", text, re.S | re.M):
        for line in block.replace("\\\n", " ").splitlines():
            line = line.strip()
            if not line.startswith(("gcloud ", "bq ")):
                continue
            program, *words = shlex.split(line, comments=True)
            # What comes before the first flag. A name at its end does no harm: gcloud's help skips it.
            command = list(itertools.takewhile(lambda word: re.fullmatch(r"[a-z-]*[a-z]", word), words))
            command = [word for word in command if not word.startswith("-")][: 1 if program == "bq" else None]
            flags = sorted({w.partition("=")[0] for w in words if w.startswith("--")})
            yield {"program": program, "command": command, "flags": flags}


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)


def cached(cache, version, command):
    name = hashlib.sha256(json.dumps([version, command]).encode()).hexdigest()[:24]
    path = cache / f"{command[0]}-{name}.txt"
    if not path.exists():
        code, text = run(command)
        # bq ends with 1 after every help text; only that of a command it knows has this line.
        known = code == 0 if command[0] == "gcloud" else command == ["bq", "--help"] or f"Flags for {command[2]}:" in text
        if not known:
            return None
        path.write_text(text)
    return path.read_text()


def known_flags(text):
    """Flags in a help text: `--flag`, `--[no-]flag` of gcloud, `--[no]flag` and `-d,--[no]flag` of bq."""
    found = set()
    for negation, name in re.findall(r"--(\[no-?\])?([a-z][a-z0-9_-]*)", text):
        found.add(f"--{name}")
        if negation:
            found.add(f"--{negation.strip('[]')}{name}")
    return found


def main():
    calls, cache, *readmes = map(Path, sys.argv[1:])
    cache.mkdir(parents=True, exist_ok=True)
    _, version = run(["gcloud", "version"])
    wanted = {}
    recorded = [json.loads(line) for line in calls.read_text().splitlines()]
    for call in recorded + [c for readme in readmes for c in from_readme(readme.read_text())]:
        wanted.setdefault((call["program"], *call["command"]), set()).update(call["flags"])

    # gcloud spends its second on one core.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        helps = [["gcloud", *words, "--help"] if program == "gcloud" else ["bq", "help", *words] for program, *words in wanted]
        list(pool.map(lambda command: cached(cache, version, command), helps))

    bad = 0
    for command, flags in sorted(wanted.items()):
        program, *words = command
        if program == "gcloud":
            text = cached(cache, version, ["gcloud", *words, "--help"])
        else:
            own = cached(cache, version, ["bq", "help", *words])
            text = own and own + (cached(cache, version, ["bq", "--help"]) or "")
        if text is None:
            print(f"unknown command: {' '.join(command)}")
            bad += 1
            continue
        # A command with subcommands has help too, but is nothing that can be run.
        if program == "gcloud" and re.search(rf"^ +gcloud {' '.join(words)} (GROUP|COMMAND)\b", text, re.M):
            print(f"not a whole command: {' '.join(command)}")
            bad += 1
            continue
        unknown = sorted(flags - known_flags(text))
        bad += len(unknown)
        print(f"{' '.join(command)}: {'unknown: ' + ' '.join(unknown) if unknown else f'{len(flags)} flags known'}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
