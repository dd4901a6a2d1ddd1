"""What is between a test server's connections and dispatch: faults, then a recorder, each when a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kvserver import dispatch
from kvserver.clock import MovableClock
from kvserver.protocol.replies import Error, Reply
from kvserver.session import Session
from kvserver.testing.faults import Faults
from kvserver.testing.recording import Recorder, Recording, replayed

if TYPE_CHECKING:
    from kvserver.journal.writer import Journal
    from kvserver.state import State


class Instruments:
    """A test's hands in a server: ``kvserver.Server(instruments=Instruments())``.

    Args:
        seed: what the chance of faults begins with.

    Attributes:
        faults: what is to go wrong.
    """

    def __init__(self, seed: int = 0) -> None:
        self.faults = Faults(seed)
        self._recorder: Recorder | None = None
        self._state: State | None = None

    @contextmanager
    def recording(self) -> Iterator[Recording]:
        """Record what clients send during a with block. It begins with whatever data there is.

        Raises:
            RuntimeError: somebody records already.
        """
        if self._recorder is not None:
            raise RuntimeError("this server is being recorded already")
        recording = Recording()
        self._recorder = Recorder(recording)
        try:
            yield recording
        finally:
            self._recorder = None

    def replay(self, recording: Recording) -> None:
        """Run the commands of a recording, each at its recorded time, and compare the replies.

        The server should hold what it held when the recording began. Its clock has to be movable (``clock_command``),
        and goes by the system's time again afterwards. Commands whose reply is different each time are not compared.

        Raises:
            Difference: a reply is not the recorded one. The first such; nothing after it is run.
            RecordingError: it is of a database that this server does not have.
            RuntimeError: the clock cannot be moved.
        """
        state = self._state
        if state is None or not isinstance(state.clock, MovableClock):
            raise RuntimeError("to replay, the clock has to be movable: start the server with clock_command='local'")
        clock, sessions = state.clock, dict[int, Session]()

        def session_of(client: int) -> Session:
            if client not in sessions:
                sessions[client] = session = Session(state, state.clients.next_id(), "127.0.0.1:0", "")
                session.be(state.users.default)
            return sessions[client]

        clock.freeze()
        try:
            replayed(recording.entries, session_of, dispatch.execute, clock.set)
        finally:
            clock.resume()
            state.keyspace.expiry.wake.set()
            for session in sessions.values():
                state.retire(session)

    # What the server calls

    def attach(self, state: State) -> None:
        """Be the instruments of a server."""
        self._state = state
        self.faults.attach(lambda: state.persistence is not None)

    def attach_to_disk(self, journal: Journal) -> None:
        """Be between a journal and its disk."""
        sync = journal.sync_file
        journal.write_file = self.faults.write
        journal.sync_file = lambda descriptor: self.faults.sync(descriptor, sync)

    def execute(self, session: Session, words: list[bytes]) -> Reply:
        """Run a command, in place of :func:`kvserver.dispatch.execute`."""
        if self.faults.rules:
            return self.faults.run(session, words, self._record, self._note_refusal)
        return self._record(session, words)

    def _note_refusal(self, session: Session, words: list[bytes], error: Error) -> None:
        if (recorder := self._recorder) is not None:
            recorder.refuse(session, words, error)

    def _record(self, session: Session, words: list[bytes]) -> Reply:
        recorder = self._recorder
        if recorder is None:
            return dispatch.execute(session, words)
        return recorder.run(session, words, dispatch.execute)
