"""Killable processes that judge whether two answers in LaTeX are the same: `service.scoring.symbolic.Judge`.

Owns the processes, their deadlines and their deaths. Each runs `math_child.py` in an interpreter of its own and has one
pair at a time; its clock starts when the pair is sent. One that is late is killed and its pair is a TIMEOUT, one that
dies by itself an ERROR; the next pair gets a fresh process. Invariant: every pair gets one judgement, in order, and no
other pair is lost with the one that killed its process. Must not import math_verify: a computer algebra system on a
model's text can hang or die, and must not take the caller along.
"""

import atexit
import contextlib
import functools
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from service.scoring.symbolic import Judgement, Pair, Ruling

_CHILD = Path(__file__).with_name("math_child.py")
_ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")
_PAIRS_PER_PROCESS = 32
"""Open pairs for which one process more is worth its start."""
_REMEMBERED = 65_536
_MAX_LINE_BYTES = 65_536


@dataclass(slots=True, eq=False)
class _Child:
    process: subprocess.Popen[bytes]
    received: bytearray = field(default_factory=bytearray)
    asked: Pair | None = None
    is_ready: bool = False
    deadline: float = 0.0

    @property
    def output(self) -> int:
        """File descriptor of what it says."""
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def ask(self, pair: Pair, *, deadline_s: float) -> bool:
        """Sends a pair and starts its clock; False if nobody is there to take it."""
        assert self.process.stdin is not None
        question = {"reference": pair.reference, "answer": pair.answer, "cpu_s": int(deadline_s) + 2}
        self.asked, self.deadline = pair, time.monotonic() + deadline_s
        try:
            self.process.stdin.write(json.dumps(question).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return False
        return True

    def kill(self) -> None:
        """Ends it at once and reaps it."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # what it never read
                    stream.close()


class MathPool:
    """A judge with `num_processes` processes at most; they start when there is something to judge.

    Remembers what it judged, so that a pair costs once. May be used by several threads; they take turns.

    Args:
        num_processes: most processes at a time.
        deadline_s: how long one pair may take [s].
        start_s: how long a process may take until it is ready [s].
        memory_bytes: address space of a process.
        command: what to start instead of the math-verify process; for tests of the pool itself.
    """

    def __init__(
        self,
        *,
        num_processes: int = 1,
        deadline_s: float = 5.0,
        start_s: float = 120.0,
        memory_bytes: int = 2 * 2**30,
        command: Sequence[str] | None = None,
    ) -> None:
        if num_processes < 1 or deadline_s <= 0:
            raise ValueError(f"num_processes must be >= 1 and deadline_s > 0, got {num_processes} and {deadline_s}")
        self._num_processes = num_processes
        self._deadline_s = deadline_s
        self._start_s = start_s
        self._command = tuple(command or (sys.executable, "-P", str(_CHILD), str(memory_bytes)))
        self._children: list[_Child] = []
        self._known: OrderedDict[Pair, Judgement] = OrderedDict()
        self._failed_starts = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Process ids of what runs now."""
        return [child.process.pid for child in self._children]

    def close(self) -> None:
        """Ends the processes; a later `judge` starts new ones."""
        with self._lock:
            self._kill(list(self._children))

    def judge(self, pairs: Sequence[Pair]) -> list[Judgement]:
        """One judgement a pair, in order; equal pairs are asked once."""
        with self._lock:
            judged = {pair: self._known[pair] for pair in pairs if pair in self._known}
            waiting = deque(dict.fromkeys(pair for pair in pairs if pair not in judged))
            self._failed_starts = 0
            with contextlib.ExitStack() as on_interrupt:
                # it must leave no process with a question that the next call would take for its own
                on_interrupt.callback(lambda: self._kill(list(self._children)))
                self._judge(waiting, judged)
                on_interrupt.pop_all()
            self._remember(pairs, judged)
        return [judged[pair] for pair in pairs]

    def _remember(self, pairs: Iterable[Pair], judged: dict[Pair, Judgement]) -> None:
        for pair in pairs:
            self._known[pair] = judged[pair]
            self._known.move_to_end(pair)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def _judge(self, waiting: deque[Pair], judged: dict[Pair, Judgement]) -> None:
        while waiting or any(child.asked for child in self._children):
            if not self._start_for(len(waiting)):
                fault = Judgement(Ruling.ERROR, "the judge of formulas does not start")
                judged.update(dict.fromkeys(waiting, fault))
                return
            for child in list(self._children):
                if waiting and child.is_ready and child.asked is None:
                    if not child.ask(waiting[0], deadline_s=self._deadline_s):
                        child.asked = None
                        self._kill([child])
                        continue
                    waiting.popleft()
            self._listen(judged)

    def _start_for(self, num_waiting: int) -> bool:
        """Starts what is worth it; False if it fails again and again."""
        free = sum(child.asked is None for child in self._children)
        wanted = min(self._num_processes, -(-num_waiting // _PAIRS_PER_PROCESS))
        while num_waiting and len(self._children) < max(wanted, int(free == 0 and not self._children)):
            if self._failed_starts >= 3:
                return bool(self._children)
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | {"PYTHONHASHSEED": "0"},
            )
            self._children.append(_Child(process, deadline=time.monotonic() + self._start_s))
        return True

    def _listen(self, judged: dict[Pair, Judgement]) -> None:
        """Waits until a process says something or is late, and takes what there is."""
        busy = [child for child in self._children if child.asked is not None or not child.is_ready]
        if not busy:
            return
        with selectors.DefaultSelector() as selector:
            for child in busy:
                selector.register(child.output, selectors.EVENT_READ, child)
            wait_s = min(child.deadline for child in busy) - time.monotonic()
            spoke = [key.data for key, _ in selector.select(max(wait_s, 0.0))]
        for child in spoke:
            self._hear(child, judged)
        now = time.monotonic()
        for child in [child for child in busy if child in self._children and child not in spoke]:
            if child.deadline <= now:
                self._lose(child, judged, Judgement(Ruling.TIMEOUT, f"no ruling within {self._deadline_s:g} s"))

    def _hear(self, child: _Child, judged: dict[Pair, Judgement]) -> None:
        piece = os.read(child.output, 65_536)
        child.received += piece
        if not piece or len(child.received) > _MAX_LINE_BYTES:
            self._lose(child, judged, Judgement(Ruling.ERROR, "the judge of formulas died of this pair"))
            return
        if not child.received.endswith(b"\n"):
            return
        try:
            said = json.loads(child.received)
            ruling, explanation = said["ruling"], said["explanation"]
            judgement = Judgement(Ruling(ruling), explanation) if child.is_ready else None
        except (ValueError, TypeError, LookupError):
            self._lose(child, judged, Judgement(Ruling.ERROR, f"no ruling: {bytes(child.received[:80])!r}"))
            return
        child.received.clear()
        if judgement is None:
            child.is_ready, self._failed_starts = True, 0
        elif child.asked is not None:
            judged[child.asked] = judgement
            child.asked = None

    def _lose(self, child: _Child, judged: dict[Pair, Judgement], judgement: Judgement) -> None:
        """Kills a process; the pair it had gets `judgement`."""
        if child.asked is not None:
            judged[child.asked] = judgement
        else:
            self._failed_starts += 1
        self._kill([child])

    def _kill(self, children: list[_Child]) -> None:
        for child in children:
            child.kill()
            self._children.remove(child)


@functools.cache
def shared_pool() -> MathPool:
    """The pool of this process, for tasks that come one after the other: a start takes longer than most of them.

    Its processes end with this one, however it ends: they read from a pipe that is closed then.
    """
    pool = MathPool()
    atexit.register(pool.close)
    return pool
