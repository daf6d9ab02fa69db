# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that results-table.json has the columns for results.proto, and which messages results.proto accepts.

Usage: results.py DEPLOY_FOLDER MESSAGES
MESSAGES is a file with a JSON list of {"description", "accepted", "message"}. Needs grpcio-tools and protobuf.
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


def compile_schema(folder):
    """Returns the descriptor of the message in results.proto."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "results.bin"
        if protoc.main(["protoc", f"-I{folder}", f"--descriptor_set_out={out}", "results.proto"]) != 0:
            sys.exit("results.proto does not compile")
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    if len(files.file) != 1 or len(files.file[0].message_type) != 1:
        sys.exit("Pub/Sub accepts only a single file with one top-level message and no imports")
    return pool.FindMessageTypeByName("Prediction")


def differences(message, columns, prefix=""):
    """Yields fields without a column, columns without a field, and types that do not match."""
    rows = {column["name"]: column for column in columns}
    for field in message.fields:
        column = rows.pop(field.name, None)
        path = f"{prefix}{field.name}"
        kind = {9: "string", 5: "int32", 1: "double", 11: "message"}.get(field.type)
        if column is None:
            yield f"{path}: there is no column"
        elif column["type"] not in TYPES.get(kind, ()):
            yield f"{path}: a column of the type {column['type']} cannot hold {kind}"
        elif (column["mode"] == "REPEATED") != field.is_repeated:
            yield f"{path}: only one of field and column is repeated"
        elif kind == "message":
            yield from differences(field.message_type, column["fields"], f"{path}.")
    for name in rows.keys() - (METADATA if not prefix else set()):
        yield f"{prefix}{name}: there is no field"
    if not prefix:
        for name in METADATA - rows.keys():
            yield f"{name}: Pub/Sub needs the column"


def main():
    folder, messages = map(Path, sys.argv[1:])
    prediction = compile_schema(folder)
    problems = list(differences(prediction, json.loads((folder / "results-table.json").read_text())))
    for case in json.loads(messages.read_text()):
        try:
            json_format.ParseDict(case["message"], message_factory.GetMessageClass(prediction)())
            accepted = True
        except json_format.ParseError:
            accepted = False
        if accepted != case["accepted"]:
            problems.append(f"{case['description']}: the message was {'accepted' if accepted else 'refused'}")
    print("\n".join(problems))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
