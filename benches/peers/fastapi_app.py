"""What people would write in Python: FastAPI, Pillow and onnxruntime, one process.

    fastapi_app.py MODEL.onnx LABELS.txt PORT THREADS

The image is the body of `POST /classify`. Decoding and the network run in the thread pool, where both let
other requests go on; a run of the network has `THREADS` threads. `GET /ready` answers once the network ran.
The numbers of the preprocessing are those of this project's models.
"""

import io
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from PIL import Image

RESIZE, CROP = 256, 224
SCALE = (1 / (255 * np.array([0.229, 0.224, 0.225]))).astype(np.float32)
SHIFT = (-np.array([0.485, 0.456, 0.406]) / np.array([0.229, 0.224, 0.225])).astype(np.float32)


def pixels(data):
    """The network's input, [1, 3, CROP, CROP]."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    ratio = RESIZE / min(image.size)
    image = image.resize([round(side * ratio) for side in image.size], Image.Resampling.BILINEAR)
    left, top = ((side - CROP) // 2 for side in image.size)
    image = image.crop((left, top, left + CROP, top + CROP))
    planes = (np.asarray(image, np.float32) * SCALE + SHIFT).transpose(2, 0, 1)
    return np.ascontiguousarray(planes[None])


def build(model, labels, threads):
    # A line is a class: its WordNet id, a tab and its label, or just the label.
    lines = Path(labels).read_text(encoding="utf-8").splitlines()
    labels = [line.split("\t")[-1].strip() for line in lines]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def predict(data):
        logits = session.run(None, {name: pixels(data)})[0][0]
        exponentials = np.exp(logits - logits.max())
        probabilities = exponentials / exponentials.sum()
        best = int(probabilities.argmax())
        return {"label": labels[best], "confidence": float(probabilities[best])}

    @asynccontextmanager
    async def lifespan(_):
        session.run(None, {name: np.zeros((1, 3, CROP, CROP), np.float32)})
        yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/ready")
    async def ready():
        return {"status": "ready"}

    @app.post("/classify")
    async def classify(request: Request):
        return await run_in_threadpool(predict, await request.body())

    return app


def main():
    model, labels, port, threads = sys.argv[1:]
    app = build(model, labels, int(threads))
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
