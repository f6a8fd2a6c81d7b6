"""The current conversation: one branch of a session's tree, and how it grows."""

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

from mixcli.chat.sessions import DONE, PARTIAL, Session, Sessions, StoredMessage
from mixcli.errors import UsageError
from mixcli.request.prompt import ChatTurn, FunctionCall
from mixcli.request.settings import ChatSettings

SAVE_EVERY = 0.5  # seconds between two saves of an answer that is being written
NAME_WORDS, NAME_LENGTH = 5, 40


class Conversation:
    """A branch: `messages` from the beginning to the head. The session is made with the first message.

    Every change is in the database when a method returns, but for the text of a running answer, which may be SAVE_EVERY behind.
    """

    def __init__(self, store: Sessions, model: str, system: str, settings: ChatSettings) -> None:
        self.store = store
        self.model = model
        self.system = system
        self.settings = settings
        self.session: Session | None = None
        self.messages: list[StoredMessage] = []
        self._text = ""
        self._saved = 0.0

    @property
    def name(self) -> str:
        """Return the session's name, empty before the first message."""
        return self.session.name if self.session else ""

    def resume(self, session: Session) -> None:
        """Resume a session, on the branch that was viewed last, with its system message and settings."""
        self.store.resume(session)
        self.session = session
        self.system = session.system
        self.settings = ChatSettings.of(session.settings)
        self.messages = self.store.path(session.head)

    def begin_anew(self) -> None:
        """Leave the session as it is; the next message begins another one."""
        self.session, self.messages = None, []

    def rename(self, name: str) -> str:
        """Rename the session and return its new name; UsageError before the first message, and for a name without words."""
        session = self._begun()
        given = self.store.rename(session.id, name_of(name))
        self.session = self.store.get(session.id)
        return given

    def remember(self) -> None:
        """Keep model, system message and settings with the session."""
        if self.session:
            self.store.configure(self.session.id, self.model, self.system, self.settings.chosen())
            self.session = self.store.get(self.session.id)

    def talk_with(self, model: str) -> None:
        """Let a model answer from now on."""
        self.model = model
        if self.session and self.session.model != model:
            self.remember()

    # a turn

    def ask(self, text: str) -> None:
        """Add what the person says, and the place of the answer."""
        if self.session is None:
            name = slug(text) or "chat"
            self.session = self.store.create(name, self.model, self.system, self.settings.chosen())
        self._add("user", text, DONE)
        self.answer()

    def answer(self) -> None:
        """Add an empty answer, which `append_delta` and `end` fill."""
        self._text, self._saved = "", time.monotonic()
        self._add("assistant", "", PARTIAL)

    def append_delta(self, text: str) -> None:
        """Take a piece of the answer; it is saved at a bounded rate."""
        self._text += text
        if time.monotonic() - self._saved >= SAVE_EVERY:
            self._save(PARTIAL)

    def end(self, state: str, token_ids: tuple[int, ...] = (), calls: tuple[FunctionCall, ...] = ()) -> None:
        """Close the answer: how it ended, its sampled tokens where they are known, and the tools that it calls."""
        self._save(state, () if calls else token_ids, calls)  # the tokens of calls are more than its text

    def add_result(self, call: FunctionCall, text: str) -> None:
        """Add what a tool returned."""
        self._add("tool", text, DONE, (call,))

    def sent(self, n_dropped: int = 0) -> list[StoredMessage]:
        """Return the messages of a request, up to the answer that is being written, but for the oldest `n_dropped`.

        A question that never got a word of answer is left out with it, and so are calls without results.
        """
        messages = self.messages
        if messages and messages[-1].role == "assistant" and messages[-1].state == PARTIAL:
            messages = messages[:-1]
        return _answered(_resolved(messages))[n_dropped:]

    def to_messages(self, n_dropped: int = 0) -> tuple[ChatTurn, ...]:
        """Return what `sent` does, and the system message, as a request has it."""
        first = (ChatTurn("system", self.system),) if self.system else ()
        return (*first, *(_as_turn(message, self.model) for message in self.sent(n_dropped)))

    # the tree

    def undo(self) -> str:
        """Go back to before the last question and return it; the turn stays in the tree as a branch."""
        if not any(one.role == "user" for one in self.messages):
            raise UsageError("no turn to undo; the conversation is empty")
        at = self._last_question()
        question = self.messages[at]
        self._look_at(question.parent)
        return question.content

    def retry(self) -> None:
        """Begin another answer to the last question, beside the old one."""
        self._look_at(self.messages[self._last_question()].id)
        self.answer()

    def question(self, number: int) -> StoredMessage:
        """Return the person's message `number`, counted from 1; UsageError when there is none."""
        questions = [message for message in self.messages if message.role == "user"]
        if not 1 <= number <= len(questions):
            raise UsageError(f"no user message {number} in this branch; /context lists them")
        return questions[number - 1]

    def before(self, number: int) -> None:
        """Go back to before question `number`; its turn stays in the tree as a branch."""
        self._look_at(self.question(number).parent)

    def branches(self) -> list[list[StoredMessage]]:
        """Return every branch of the session, from the beginning to its leaf."""
        return [self.store.path(leaf.id) for leaf in self.store.leaves(self._begun().id)]

    def switch(self, number: int) -> None:
        """Go to the end of branch `number`, counted from 1."""
        leaves = self.store.leaves(self._begun().id)
        if not 1 <= number <= len(leaves):
            raise UsageError(f"no branch {number}; /branch lists all {len(leaves)}")
        self._look_at(leaves[number - 1].id)

    def last_turn(self) -> list[StoredMessage]:
        """Return the last question and what followed it; of a branch that does not end so its last two messages."""
        for n in range(1, len(self.messages) + 1):
            if self.messages[-n].role == "user":
                return self.messages[-max(n, 2) :]
        return self.messages[-2:]

    def last_answer(self) -> StoredMessage:
        """Return the last answer; UsageError when there is none."""
        found = next(
            (one for one in reversed(self.messages) if one.role == "assistant" and one.content), None
        )
        if found is None:
            raise UsageError("no answer yet; send a message first")
        return found

    def _begun(self) -> Session:
        if self.session is None:
            raise UsageError("the conversation is empty; send a message first")
        return self.session

    def _last_question(self) -> int:
        for at in range(len(self.messages) - 1, -1, -1):
            if self.messages[at].role == "user":
                return at
        raise UsageError("no message to answer yet; send one first")

    def _look_at(self, head: int | None) -> None:
        self.store.look_at(self._begun().id, head)
        self.messages = self.store.path(head)

    def _add(self, role: str, text: str, state: str, calls: tuple[FunctionCall, ...] = ()) -> None:
        parent = self.messages[-1].id if self.messages else None
        self.messages.append(self.store.add(self._begun().id, parent, role, text, state, self.model, calls))

    def _save(
        self, state: str, token_ids: tuple[int, ...] = (), calls: tuple[FunctionCall, ...] = ()
    ) -> None:
        last = replace(
            self.messages[-1],
            content=self._text,
            state=state,
            token_ids=token_ids,
            model=self.model,
            calls=calls,
        )
        self.messages[-1] = last
        self.store.update(last)
        self._saved = time.monotonic()


def slug(text: str) -> str:
    """Make a session's name of a message: its first words, in lower case, with hyphens."""
    words = re.findall(r"[\w']+", text.lower())[:NAME_WORDS]
    return "-".join(word.replace("'", "") for word in words)[:NAME_LENGTH].strip("-_")


def name_of(said: str) -> str:
    """Return the name of a session as a person chose it, in the form that all have; UsageError where nothing of it is left."""
    if name := slug(said):
        return name
    raise UsageError(f"{said[:60]!r} has no letters or digits to make a name of; choose another one")


def _resolved(messages: Sequence[StoredMessage]) -> list[StoredMessage]:
    """Return messages without the calls of an answer that did not all get a result before the chat ended, and without their results.

    A result whose call cannot be read is left out too.
    """
    kept: list[StoredMessage] = []
    is_whole = True
    for at, message in enumerate(messages):
        if message.role == "assistant":
            results = takewhile(lambda one: one.role == "tool", messages[at + 1 :])
            found = {call.id for one in results for call in one.calls}
            is_whole = all(call.id in found for call in message.calls)
            kept.append(message if is_whole else replace(message, calls=()))
        elif message.role != "tool" or (is_whole and message.calls):
            kept.append(message)
    return kept


def _answered(messages: Sequence[StoredMessage]) -> list[StoredMessage]:
    kept: list[StoredMessage] = []
    for message in messages:
        if message.role == "assistant" and not message.content and not message.calls:
            if kept and kept[-1].role == "user":
                kept.pop()
            continue
        kept.append(message)
    return kept


def _as_turn(message: StoredMessage, model: str) -> ChatTurn:
    same = message.model == model  # another model has another vocabulary
    if message.role == "tool":
        return ChatTurn("tool", message.content, call_id=message.calls[0].id)
    return ChatTurn(message.role, message.content, message.token_ids if same else (), message.calls)
