"""The life of a stream that is fed, against a model: open, next, feed, final, cancel and close in any order.

What the model says of ``echo``, in Rust and in C: each block that was taken comes out once, in order; the end comes
once, after the final block; nothing is taken after that; and a cancelled stream ends, and stays ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings, stateful
from hypothesis import strategies as st

import ferrule


class EchoMachine(stateful.RuleBasedStateMachine):
    """A stream and its model, side by side; a closed one is followed by another of the same instance."""

    instance: ferrule.Instance
    open_stream: Callable[..., Any]

    def __init__(self) -> None:
        super().__init__()
        self.stream: Any = None

    def opened(self) -> Any:
        assert self.stream is not None
        return self.stream

    @stateful.precondition(lambda self: self.stream is None)
    @stateful.rule()
    def open(self) -> None:
        self.stream = self.open_stream(self.instance, "echo")
        self.waiting: deque[bytes] = deque()
        self.final = self.cancelled = self.ended = False

    @stateful.precondition(lambda self: self.stream is not None)
    @stateful.rule(block=st.binary(min_size=1, max_size=2000), final=st.booleans())
    def feed(self, block: bytes, final: bool) -> None:
        try:
            taken = self.opened().feed(block, final=final, timeout=5)
        except ferrule.InvalidStateError:
            assert self.final
        except ferrule.CancelledError:
            assert self.cancelled
        else:
            assert taken or self.cancelled
            assert not self.final
            if taken:
                assert not self.ended
                self.waiting.append(block)
                self.final = final

    @stateful.precondition(lambda self: self.stream is not None)
    @stateful.rule()
    def finish(self) -> None:
        try:
            taken = self.opened().feed(final=True, timeout=5)
        except ferrule.InvalidStateError:
            assert self.final
        except ferrule.CancelledError:
            assert self.cancelled
        else:
            assert not self.final
            assert taken or self.cancelled
            self.final = taken or self.final

    @stateful.precondition(lambda self: self.stream is not None)
    @stateful.rule()
    def next(self) -> None:
        expects_nothing = not (self.waiting or self.final or self.cancelled or self.ended)
        try:
            item = self.opened().next(timeout=0.005 if expects_nothing else 5)
        except ferrule.PluginTimeoutError:
            assert expects_nothing
        except StopIteration:
            assert self.ended or self.cancelled or (self.final and not self.waiting)
            self.ended = True
        except ferrule.CancelledError:
            assert self.cancelled
            assert not self.ended
            self.ended = True
        else:
            assert not self.ended
            assert item == self.waiting.popleft()

    @stateful.precondition(lambda self: self.stream is not None)
    @stateful.rule()
    def cancel(self) -> None:
        self.opened().cancel()
        self.cancelled = True

    @stateful.precondition(lambda self: self.stream is not None)
    @stateful.rule()
    def close(self) -> None:
        self.opened().close()
        with pytest.raises(StopIteration):
            next(self.opened())
        if self.final or not self.ended:
            with pytest.raises(ferrule.InvalidStateError):
                self.opened().feed(b"x")
        else:
            assert not self.opened().feed(b"x")
        self.stream = None

    def teardown(self) -> None:
        """Whatever came before, the instance still does its work."""
        if self.stream is not None:
            self.stream.close()
        assert self.instance.call("run", {"input_data": "x"}) == "Processed: x"


def test_a_stream_does_what_its_model_says(my_runner: Path, open_stream: Callable[..., Any]) -> None:
    """No order of calls, blocking or awaited, loses, doubles or reorders a block, hangs, or breaks the instance."""
    with ferrule.Host() as host, host.create(str(my_runner)) as instance:

        class Machine(EchoMachine):
            pass

        Machine.instance = instance
        Machine.open_stream = staticmethod(open_stream)
        stateful.run_state_machine_as_test(
            Machine, settings=settings(max_examples=150, stateful_step_count=25, deadline=None)
        )
