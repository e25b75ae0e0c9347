"""Writes that an asyncio program awaits: each runs in the one thread that a shard has for them.

A commit at durability "power" waits for the disk, and any write may wait for a checkpoint or for another thread's
transaction. In the loop's own thread all other tasks would wait, too. One thread per shard keeps the order: rows have
the order in which their writes were first awaited.

Cancelling a write, step by step:

1. It is still queued: it is taken out of the queue, and nothing is written.
2. Its thread waits for the shard: it is abandoned, and nothing is written.
3. It has begun: it runs to its end, which takes as long as a write takes. Only then is the task cancelled.

So when the ``await`` ends, by a result, an error or a cancellation, `AsyncWrite.kept` says whether the rows are stored.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Protocol

from edgeshard.errors import ConfigurationError, EdgeshardError, ShardPoisonedError

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future


class _Writer(Protocol):
    """What an `AsyncWrite` needs of a shard."""

    path: str
    _unusable: EdgeshardError | None

    def _run_in_thread(self, work: Callable[[], None]) -> Future[None]: ...

    def _take_turn(self, is_abandoned: Callable[[], bool]) -> bool: ...

    def _end_turn(self) -> None: ...


class AsyncWrite(Coroutine[Any, Any, int]):
    """A write of `Shard.awrite` or `Shard.awrite_many`. Await it once; it begins then.

    It is a coroutine: ``asyncio.create_task``, ``gather``, ``timeout`` and task groups take it.

    Attributes:
        kept: whether its rows are stored. True or False as soon as the ``await`` has ended, also if it was cancelled;
            None if a failure of the disk left that unknown (`ShardPoisonedError`). False before.
        result: what the write returned, once its rows are stored; before that, None.
    """

    __slots__ = ("_is_abandoned", "_steps", "_write", "_writer", "kept", "result")

    def __init__(self, writer: _Writer, write: Callable[[], int], name: str) -> None:
        self.kept: bool | None = False
        self.result: int | None = None
        self._writer = writer
        self._write = write
        self._is_abandoned = False  # has no effect on a write that has begun
        self._steps = self._run()
        self._steps.__qualname__ = name  # type: ignore[attr-defined]  # in the warning that it was never awaited

    def __repr__(self) -> str:
        return f"<AsyncWrite to {self._writer.path}: kept={self.kept}, result={self.result}>"

    # -- a coroutine --------------------------------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, Any, int]:
        return self._steps.__await__()

    def send(self, value: Any) -> Any:
        """Go on: asyncio calls this."""
        return self._steps.send(value)

    def throw(self, error: Any, *rest: Any) -> Any:
        """Raise an error where it waits: asyncio calls this."""
        return self._steps.throw(error, *rest)

    def close(self) -> None:
        """Give it up, if it has not begun."""
        self._is_abandoned = True
        self._steps.close()

    # -- in the loop --------------------------------------------------------------------------------------------------

    async def _run(self) -> int:
        import asyncio  # whoever awaits this has imported it, and nobody else should wait for that

        loop = _running_loop(self._writer.path)
        queued = self._writer._run_in_thread(self._work)
        done: asyncio.Future[None] = asyncio.wrap_future(queued, loop=loop)
        try:
            await asyncio.shield(done)
        except asyncio.CancelledError:
            if not queued.cancel():
                self._is_abandoned = True
                await await_end(done)
                done.exception()  # seen: the task is cancelled, and `kept` says what became of the write
            raise
        assert self.result is not None  # noqa: S101  -- the write returned, or raised above
        return self.result

    # -- in the thread ------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        if not self._writer._take_turn(lambda: self._is_abandoned):
            return
        try:
            was_usable = self._writer._unusable is None
            try:
                self.result = self._write()
                self.kept = True
            except BaseException:
                self.kept = None if was_usable and isinstance(self._writer._unusable, ShardPoisonedError) else False
                raise
        finally:
            self._writer._end_turn()


def _running_loop(path: str) -> asyncio.AbstractEventLoop:
    import asyncio

    try:
        return asyncio.get_running_loop()
    except RuntimeError as error:
        cause = (
            "no asyncio loop runs in this thread. With trio, write in a thread: await trio.to_thread.run_sync("
            "shard.write, record). Without a loop, call shard.write(record)"
        )
        raise ConfigurationError("await a write to shard", path, cause) from error


async def await_end(future: asyncio.Future[Any]) -> None:
    """Wait until a future is done, however often the task is cancelled meanwhile."""
    import asyncio

    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future])
