"""vLLM's own OpenAI-compatible server on loopback, as a process of the test that starts it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from service.models import ModelSpec
from workers.engine import engine_environment

_ROOT = Path(__file__).parents[2]
_START_S = 180.0
_STOP_S = 30.0


@contextmanager
def vllm_server(model: ModelSpec, *, log: Path, api_key: str) -> Iterator[str]:
    """Its address, once it answers; the process and what it started have ended afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    options = model.engine
    arguments = {
        "--model": model.path,
        "--served-model-name": model.name,
        "--host": "127.0.0.1",
        "--port": port,
        "--load-format": "safetensors",
        "--dtype": options.dtype,
        "--max-model-len": model.context_len,
        "--max-num-seqs": options.max_num_seqs,
        "--kv-cache-memory-bytes": int(options.kv_cache_gib * (1 << 30)),
    }
    # the module, because the build for CPUs has the command under a name that it does not find itself by
    command = [sys.executable, "-m", "vllm.entrypoints.launchers.api_server.entry", "--enforce-eager"]
    command += ["--enable-prompt-tokens-details", *(str(word) for pair in arguments.items() for word in pair)]
    environment = {**os.environ, **engine_environment(model, 1), "PYTHONPATH": str(_ROOT), "VLLM_API_KEY": api_key}
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _wait_until_ready(process, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        _end(process)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-4000:]
        try:
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(f"no answer from {url} after {_START_S} s: {log.read_text()[-4000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its own session: itself and what it started
        process.wait()
