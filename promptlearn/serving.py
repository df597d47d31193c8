"""A model behind HTTP: a page to try it in the browser, and JSON for programs.

GET  /         the page
GET  /model    what is served: method, class names, limits
POST /predict  multipart/form-data: `pictures` (files); optional `classes` (one name each), `top`, and `attention`

Nothing is read from or kept on the disk for a request; files that are received are temporary. Requests are computed one
after the other.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import python_multipart  # noqa: F401, the extra "serve": starlette needs it to read forms, and only says so then
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route
from starlette.types import Message

from basics import UserError, notify
from dassl.utils import read_image
from promptlearn.classifier import PromptedClassifier

MAX_PICTURES, MAX_CLASSES, MAX_MEGABYTES = 16, 1000, 32  # of a request
MAX_CONNECTIONS = 32  # more get status 503
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # Pillow starts other programs for some of the others
TOP = 5  # classes per picture unless `top` is given
LOOPBACK = ("127.0.0.1", "localhost", "::1")
PAGE = Path(__file__).with_name("serving.html")
# The page is all that a browser may load. It shows pictures from memory.
POLICY = (
    "default-src 'none'; connect-src 'self'; img-src blob: data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def create_app(classifier: PromptedClassifier, host: str = LOOPBACK[0]) -> Starlette:
    """Create the application that serves a classifier with its present classes.

    Args:
        host: the address it is reachable at. On loopback, requests for other host names are refused, so that a page
            from elsewhere cannot reach it through a name of its own.
    """
    page, classnames, one_at_a_time = PAGE.read_text(encoding="utf-8"), classifier.classnames, asyncio.Lock()

    async def show(request: Request) -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"})

    async def describe(request: Request) -> JSONResponse:
        described = classifier.description
        facts = {"method": described.method, "backbone": described.settings.get("MODEL.BACKBONE.NAME")}
        limits = {"pictures": MAX_PICTURES, "classes": MAX_CLASSES, "megabytes": MAX_MEGABYTES}
        fixed = classifier.model.per_class_parameters
        return JSONResponse({**facts, "classnames": classnames, "classes_are_fixed": fixed, "limits": limits})

    async def predict(request: Request) -> JSONResponse:
        form = Limited(request).form(max_files=MAX_PICTURES, max_fields=MAX_CLASSES + 2)
        async with form as fields:
            files = [(file.filename or "picture", file.file) for file in uploads(fields.getlist("pictures"))]
            names = [str(name) for name in fields.getlist("classes")] or classnames
            top, attention = integer(fields.get("top", TOP)), fields.get("attention", "") not in ("", "0")
            async with one_at_a_time:
                return JSONResponse(await run_in_threadpool(answer, classifier, files, names, top, attention))

    return Starlette(
        routes=[Route("/", show), Route("/model", describe), Route("/predict", predict, methods=["POST"])],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, "[::1]"] if host in LOOPBACK else ["*"])
        ],
        exception_handlers={UserError: refuse, HTTPException: refuse},
    )


class Limited(Request):
    """A request whose body is refused once it exceeds MAX_MEGABYTES."""

    def __init__(self, request: Request):
        received = 0

        async def receive() -> Message:
            nonlocal received
            message = await request.receive()
            received += len(message.get("body", b""))
            if received > MAX_MEGABYTES * 1e6:
                raise HTTPException(413, f"request: expected at most {MAX_MEGABYTES} MB, got more.")
            return message

        super().__init__(request.scope, receive)


async def refuse(request: Request, error: Exception) -> JSONResponse:
    """Answer with what is wrong with a request."""
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)
    return JSONResponse({"error": str(error)}, 400)


def uploads(found: Sequence[UploadFile | str]) -> list[UploadFile]:
    """Return the files of a form.

    Raises:
        UserError: there is none, or a text in place of a file.
    """
    files = [each for each in found if isinstance(each, UploadFile)]
    if not files or len(files) < len(found):
        raise UserError("pictures: expected files in multipart/form-data, got none or something else.")
    return files


def integer(text: object) -> int:
    """Return the value of `top`.

    Raises:
        UserError: it is no integer from 1.
    """
    if not str(text).isdecimal() or int(str(text)) < 1:
        raise UserError(f"top: expected an integer of at least 1, got {text!r}.")
    return int(str(text))


def answer(
    classifier: PromptedClassifier,
    files: Sequence[tuple[str, BinaryIO]],
    classnames: list[str],
    top: int,
    attention: bool,
) -> dict[str, Any]:
    """Classify picture files.

    Args:
        files: (name, content) of each.
        top: number of classes that are named for each picture.
        attention: whether to add where CLS and the prompts attend to.

    Returns:
        {"pictures": [{"name", "classes": [{"name", "probability"}, ...] from the most probable one, "rejected":
        whether it probably shows none of them, if the model has a threshold}, ...]}; with `attention`, if the backbone
        has an image transformer, also {"tokens": [...], "layers": [...]} and in each picture {"attention": token ->
        layer -> row -> column of the patches}, as in `TokenMaps`.

    Raises:
        UserError: a file is not a picture, or the class names are unusable.
    """
    classifier.classnames = classnames
    images = [classifier.transform(read_image(file, formats=FORMATS, name=name)) for name, file in files]
    predictions = classifier.predict(images, top_k=top)
    pictures: list[dict[str, Any]] = []
    for (name, _), names, shares in zip(files, predictions.classnames, predictions.probabilities.tolist(), strict=True):
        classes = [{"name": n, "probability": round(share, 4)} for n, share in zip(names, shares, strict=True)]
        pictures.append({"name": name, "classes": classes})
    if predictions.rejected is not None:
        for picture, rejected in zip(pictures, predictions.rejected.tolist(), strict=True):
            picture["rejected"] = rejected
    maps = classifier.attention(images) if attention else None
    if maps is None:
        return {"pictures": pictures}
    for picture, weights in zip(pictures, maps.weights.mul(1e4).round().div(1e4).tolist(), strict=True):
        picture["attention"] = weights
    return {"pictures": pictures, "tokens": maps.tokens, "layers": maps.layers}


def listen(host: str, port: int) -> socket.socket:
    """Reserve an address.

    Raises:
        UserError: it is in use, or not one of this machine's.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"--host, --port: expected a free address of this machine, got {host}:{port} ({reason}). Choose another."
        ) from error


def serve(app: Starlette, listener: socket.socket) -> None:
    """Answer requests until a signal stops this process."""
    host, port = listener.getsockname()[:2]
    print(f"http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    if host not in LOOPBACK:
        notify("note: everybody who can reach this address can use the model")
    notify("Press Ctrl-C to stop.")
    options: dict[str, Any] = {"http": "h11", "ws": "none", "lifespan": "off", "log_level": "warning"}
    options |= {"limit_concurrency": MAX_CONNECTIONS, "timeout_graceful_shutdown": 5, "server_header": False}
    uvicorn.Server(uvicorn.Config(app, **options)).run(sockets=[listener])
