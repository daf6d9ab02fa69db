# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that the installed gcloud and bq know every command and flag that the scripts use.

Usage: flags.py CALLS CACHE [README]
CALLS   file with the calls that stub.py recorded, one JSON object per line
CACHE   folder for the help texts, because gcloud needs a second or more to print one
README  Markdown file; the gcloud and bq commands in its ```sh blocks are checked, too

Prints one line per distinct command. Exits with 1 if a command or flag is unknown.
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


def commands_in_readme(text):
    """Yields the commands in the ```sh blocks, in the form that stub.py records."""
    for block in re.findall(r"^ *```sh\n(.*?)^ *```", text, re.S | re.M):
        for line in block.replace("\\\n", " ").splitlines():
            line = line.strip()
            if not line.startswith(("gcloud ", "bq ")):
                continue
            program, *words = shlex.split(line, comments=True)
            # The words before the first flag. If the last word is the name of a resource, gcloud's help
            # ignores it.
            command = list(itertools.takewhile(lambda word: re.fullmatch(r"[a-z-]*[a-z]", word), words))
            command = [word for word in command if not word.startswith("-")][: 1 if program == "bq" else None]
            flags = sorted({w.partition("=")[0] for w in words if w.startswith("--")})
            yield {"program": program, "command": command, "flags": flags}


def run(command):
    """Returns the exit status and the output of a command, without terminal colours."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)


def help_text(cache, version, command):
    """Returns the help text that `command` prints, or None for an unknown command. Uses the cache if possible."""
    name = hashlib.sha256(json.dumps([version, command]).encode()).hexdigest()[:24]
    path = cache / f"{command[0]}-{name}.txt"
    if not path.exists():
        code, text = run(command)
        # bq exits with 1 after every help text. Only the help text of a known command contains this line.
        known = code == 0 if command[0] == "gcloud" else command == ["bq", "--help"] or f"Flags for {command[2]}:" in text
        if not known:
            return None
        path.write_text(text)
    return path.read_text()


def known_flags(text):
    """Returns the flags in a help text.

    gcloud writes `--flag` and `--[no-]flag`. bq writes `--flag`, `--[no]flag` and `-d,--[no]flag`.
    """
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
    for call in recorded + [c for readme in readmes for c in commands_in_readme(readme.read_text())]:
        wanted.setdefault((call["program"], *call["command"]), set()).update(call["flags"])

    # Fills the cache. Each gcloud process needs one core for a second or more.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        helps = [["gcloud", *words, "--help"] if program == "gcloud" else ["bq", "help", *words] for program, *words in wanted]
        list(pool.map(lambda command: help_text(cache, version, command), helps))

    error_count = 0
    for command, flags in sorted(wanted.items()):
        program, *words = command
        if program == "gcloud":
            text = help_text(cache, version, ["gcloud", *words, "--help"])
        else:
            command_help = help_text(cache, version, ["bq", "help", *words])
            text = command_help and command_help + (help_text(cache, version, ["bq", "--help"]) or "")
        if text is None:
            print(f"unknown command: {' '.join(command)}")
            error_count += 1
            continue
        # A command group has a help text, too, but cannot be run.
        if program == "gcloud" and re.search(rf"^ +gcloud {' '.join(words)} (GROUP|COMMAND)\b", text, re.M):
            print(f"a command group, not a command: {' '.join(command)}")
            error_count += 1
            continue
        unknown = sorted(flags - known_flags(text))
        error_count += len(unknown)
        print(f"{' '.join(command)}: {'unknown: ' + ' '.join(unknown) if unknown else f'{len(flags)} flags known'}")
    sys.exit(1 if error_count else 0)


if __name__ == "__main__":
    main()
