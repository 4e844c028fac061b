"""Questions that are asked at once are encoded together: one call of the encoder for all that came while it was busy.

Nobody waits for company: a question that comes alone is encoded alone, at once. `models/batch_embedder.py` gathers by
waiting a few milliseconds instead, which pays for passages, and would make each question later.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

from ultrafast_rag.monitor import PerformanceMonitor
from ultrafast_rag.ports import TextEncoder
from ultrafast_rag.types import Vectors

MOST = 64  # questions in one call
Asked = tuple[TextEncoder, str, "Future[Vectors]"]


class Gatherer:
    """A thread beside the callers that encodes what they ask; started by the first question."""

    def __init__(self, monitor: PerformanceMonitor) -> None:
        self._monitor = monitor
        self._thread = ThreadPoolExecutor(1, "ufr-question")
        self._waiting: list[Asked] = []
        self._lock = threading.Lock()

    def submit(self, encoder: TextEncoder, question: str) -> Future[Vectors]:
        """The question's vector (d,), later. What the encoder raises is raised to everybody of the call it failed in."""
        answer: Future[Vectors] = Future()
        with self._lock:
            self._waiting.append((encoder, question, answer))
        self._thread.submit(self._encode)
        return answer

    def _encode(self) -> None:
        with self._lock:  # one turn is submitted for each question, so those that find nothing left have nothing to do
            taken, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
        for encoder in {id(one): one for one, _, _ in taken}.values():
            with self._monitor.measure("search: encode"):
                _answer(encoder, [(question, answer) for one, question, answer in taken if one is encoder])

    def close(self) -> None:
        """End the thread when all is answered."""
        self._thread.shutdown()


def _answer(encoder: TextEncoder, asked: list[tuple[str, Future[Vectors]]]) -> None:
    try:
        vectors = encoder.encode_queries([question for question, _ in asked])
    except BaseException as error:  # given to those who wait, in their threads
        for _, answer in asked:
            answer.set_exception(error)
        return
    for (_, answer), vector in zip(asked, vectors):
        answer.set_result(vector)
