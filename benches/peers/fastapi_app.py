"""Classifies pictures as a typical Python service does: with FastAPI, Pillow and onnxruntime in one process.

    fastapi_app.py MODEL.onnx LABELS.txt PORT THREADS

The body of `POST /classify` is the image. Decoding and the network run in the thread pool and release the
interpreter for other requests. Each run of the network uses `THREADS` threads. `GET /ready` answers 200 after
the network has run once. The constants describe the preprocessing that this project's models need.
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
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SCALE, SHIFT = (1 / (255 * STD)).astype(np.float32), (-MEAN / STD).astype(np.float32)


def network_input(data):
    """Decodes a picture to the input of the network, an array of the shape [1, 3, CROP, CROP]."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    ratio = RESIZE / min(image.size)
    image = image.resize([round(side * ratio) for side in image.size], Image.Resampling.BILINEAR)
    left, top = ((side - CROP) // 2 for side in image.size)
    image = image.crop((left, top, left + CROP, top + CROP))
    planes = (np.asarray(image, np.float32) * SCALE + SHIFT).transpose(2, 0, 1)
    return np.ascontiguousarray(planes[None])


def build_app(model, labels, threads):
    # Each line is a class: its WordNet id, a tab and its label, or the label alone.
    lines = Path(labels).read_text(encoding="utf-8").splitlines()
    labels = [line.split("\t")[-1].strip() for line in lines]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def predict(data):
        logits = session.run(None, {name: network_input(data)})[0][0]
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


if __name__ == "__main__":
    model, labels, port, threads = sys.argv[1:]
    app = build_app(model, labels, int(threads))
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", access_log=False)
