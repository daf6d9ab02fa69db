# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks results.proto and results-table.json against each other and against messages.

Usage: results.py DEPLOY_FOLDER MESSAGES
MESSAGES is a JSON list of {"why", "accepted", "message"}. Needs grpcio-tools and protobuf.
"""

import json
import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_tools import protoc

# Columns that Pub/Sub writes itself (--write-metadata).
METADATA = {"subscription_name", "message_id", "publish_time", "attributes"}
TYPES = {"string": {"STRING", "TIMESTAMP"}, "int32": {"INTEGER"}, "double": {"FLOAT"}, "message": {"RECORD"}}


def compiled(folder):
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "results.bin"
        if protoc.main(["protoc", f"-I{folder}", f"--descriptor_set_out={out}", "results.proto"]) != 0:
            sys.exit("results.proto does not compile")
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    if len(files.file) != 1 or len(files.file[0].message_type) != 1:
        sys.exit("Pub/Sub takes one file with one message at its top, and no imports")
    return pool.FindMessageTypeByName("Prediction")


def differences(message, columns, where=""):
    """Fields without their column, columns without their field, and types that do not fit."""
    rows = {column["name"]: column for column in columns}
    for field in message.fields:
        column = rows.pop(field.name, None)
        path = f"{where}{field.name}"
        kind = {9: "string", 5: "int32", 1: "double", 11: "message"}.get(field.type)
        if column is None:
            yield f"{path}: no column"
        elif column["type"] not in TYPES.get(kind, ()):
            yield f"{path}: {kind} does not go into {column['type']}"
        elif (column["mode"] == "REPEATED") != field.is_repeated:
            yield f"{path}: repeated in one of the two only"
        elif kind == "message":
            yield from differences(field.message_type, column["fields"], f"{path}.")
    for name in rows.keys() - (METADATA if not where else set()):
        yield f"{where}{name}: no field"
    if not where:
        for name in METADATA - rows.keys():
            yield f"{name}: Pub/Sub needs the column"


def main():
    folder, messages = map(Path, sys.argv[1:])
    prediction = compiled(folder)
    problems = list(differences(prediction, json.loads((folder / "results-table.json").read_text())))
    for case in json.loads(messages.read_text()):
        try:
            json_format.ParseDict(case["message"], message_factory.GetMessageClass(prediction)())
            accepted = True
        except json_format.ParseError:
            accepted = False
        if accepted != case["accepted"]:
            problems.append(f"{case['why']}: {'accepted' if accepted else 'refused'}")
    print("\n".join(problems))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
