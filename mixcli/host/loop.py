"""The one thread that owns the engine: it loads the model, then steps while there is work.

llama.cpp's context belongs to one thread; everybody else puts calls into the inbox and reads outputs from an asyncio queue.
"""

import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NoReturn, TypeVar

from mixcli import paths
from mixcli.engine.answers import Answers
from mixcli.engine.engine import Engine
from mixcli.engine.faults import request_error, survived
from mixcli.engine.formats import Message
from mixcli.engine.llama import ContextLost
from mixcli.engine.loading import Loaded, load
from mixcli.engine.overflow import fitted
from mixcli.engine.prompt import ChatFormat
from mixcli.engine.sequence import Label, Output, Request
from mixcli.errors import BadRequest, MixcliError
from mixcli.host.call import Call, Item, Question, deliver
from mixcli.host.crowding import Crowding
from mixcli.host.kv import open_store
from mixcli.host.protocol import FAILED, LOADING, READY
from mixcli.host.sharing import Sharing
from mixcli.host.spec import HostSpec

T = TypeVar("T")


class EngineLoop:
    """Runs the engine of one host; `on_state` is called from its thread after every change of state or progress."""

    def __init__(self, spec: HostSpec, on_state: Callable[[], None]) -> None:
        self.spec = spec
        self.placement = spec.order.placement
        self.status = LOADING
        self.progress = 0.0
        self.notes: list[str] = []
        self.error: BaseException | None = None
        self._on_state = on_state
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._calls: dict[str, Call] = {}
        self._sharing = Sharing(paths.runtime_dir())
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._main, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to load the model."""
        self._thread.start()

    def submit(self, call: Call) -> None:
        """Queue a call; its outputs begin when the model is loaded and there is room for it."""
        self._inbox.put(lambda: self._add(call))

    def abort(self, call: Call) -> None:
        """Drop a call whose asker is gone."""
        self._inbox.put(lambda: self._drop(call.id))
        if call.id in self._calls:
            self._engine.interrupt()  # so that a long prefill need not end first

    def counts(self) -> dict[str, int]:
        """Give how many requests run, wait and have been done, how many prompt tokens were computed, and with how many threads single tokens are
        computed now; zeros before the model is loaded.
        """
        engine = self._engine if self.status == READY else None
        return {
            "n_running": engine.n_running if engine else 0,
            "n_waiting": engine.n_waiting if engine else 0,
            "n_requests_done": engine.n_done if engine else 0,
            "n_prompt_tokens_done": engine.n_prompt_tokens_done if engine else 0,
            "n_threads": self._n_threads[0] if engine else 0,
        }

    def pieces(self, tokens: Sequence[int]) -> list[bytes]:
        """Give the bytes of tokens."""
        return [self._vocab.piece(token) for token in tokens]

    def tokenize(self, messages: Sequence[Message] | None, text: str | None) -> "Future[list[int]]":
        """Give the token ids of a conversation, ready for an answer, or of a text."""
        if messages is not None:
            return self._between_steps(lambda: self._encode(messages))
        return self._between_steps(lambda: self._format.tokenizer.encode(text or ""))

    def experts(self, messages: Sequence[Message]) -> "Future[dict[str, Any]]":
        """Give which experts the last message of a conversation was given to; see engine.experts.routing."""
        return self._between_steps(lambda: self._routing(messages))

    def close(self, timeout: float) -> None:
        """Stop after the present step, write to disk what shall stay, and wait for the thread at most `timeout` seconds."""
        self._closing.set()
        self._inbox.put(None)
        if self.status == READY:
            self._engine.interrupt()
        self._thread.join(timeout)

    # the engine's thread

    def _main(self) -> None:
        try:
            self._load()
        except BaseException as error:
            self.error, self.status = error, FAILED
            self._on_state()
            return
        self.status = READY
        self._on_state()
        try:
            while not self._closing.is_set():
                self._turn()
            self._engine.close()
        except (
            ContextLost
        ) as error:  # nothing that the context holds can be trusted: the front ends say why the process ended
            self._end(f"mixcli: {error}")
        except BaseException:  # so is it with a bug that no single request can have caused
            self._end(traceback.format_exc())

    @staticmethod
    def _end(why: str) -> NoReturn:
        sys.stderr.write(f"{why}\n")
        sys.stderr.flush()
        os._exit(MixcliError.exit_code)

    def _load(self) -> None:
        def on_progress(share: float) -> bool:
            if share - self.progress >= 0.01 or share == 1.0:
                self.progress = share
                self._on_state()
            return not self._closing.is_set()

        order = self.spec.order
        smaller = (order.smaller.placement, order.smaller.expected) if order.smaller else None
        self._loaded: Loaded = load(
            self.spec.name.path, order.placement, order.expected, smaller, on_progress
        )
        self.notes += self._loaded.notes
        self.placement = self._loaded.placement
        self._vocab = self._loaded.model.vocab
        self._format = ChatFormat.of(self._loaded.model)
        self._answers = Answers(self._vocab)
        store = open_store(self.spec.name.path, self.placement)
        self._n_threads = self.placement.n_threads, self.placement.n_threads_batch
        self._crowding = Crowding(max(self._n_threads))
        self._engine = Engine(self._loaded.model, self._loaded.context, store)

    def _turn(self) -> None:
        """Take what is in the inbox, waiting for it when there is nothing else to do, then step once."""
        while not self._inbox.empty() or not self._engine.has_work:
            if not self._engine.has_work:
                self._sharing.idle()
            action = self._inbox.get()
            if action is None:
                return
            action()
        self._share()
        taken = map(self._take, self._engine.step())
        deliver([item for item in taken if item is not None])

    def _take(self, output: Output) -> tuple[Call, Item] | None:
        """Note what came for a call; None where nobody waits for it."""
        call = self._calls.get(output.id)
        if call is None:  # its asker is gone
            return None
        if output.progress is None:
            call.outputs.append(output)
        if output.is_last:
            del self._calls[call.id]
            if output.finish_reason == "stop" and not call.question.choices:
                with survived():
                    self._answers.learn(call.text, call.token_ids)
        elif call.as_whole:
            return None
        return call, output.error or output

    def _add(self, call: Call) -> None:
        try:
            request = self._request(call)
            self._engine.add(request)
        except Exception as error:
            deliver([(call, request_error(error))])
        else:
            self._calls[call.id] = call

    def _request(self, call: Call) -> Request:
        question = call.question
        messages = self._answers.recall(question.messages)
        prompt, call.n_dropped = fitted(
            messages,
            self._format.encode,
            self._loaded.context.n_ctx,
            question.sampling.max_tokens,
            question.on_overflow,
        )
        return Request(
            id=call.id,
            prompt=tuple(prompt),
            sampling=question.sampling,
            continues_text=question.messages[-1].role == "assistant",
            constraint=question.constraint,
            labels=self._labels(question) if question.choices else (),
            top_logprobs=question.top_logprobs,
            speculate=question.speculate,
            park=question.park,
            persist=question.persist,
        )

    def _labels(self, question: Question) -> tuple[Label, ...]:
        """Give the choices as token ids, each as the assistant would write it behind this prompt."""
        labels: dict[tuple[int, ...], Label] = {}
        for choice in question.choices:
            tokens = tuple(self._format.encode_answer(choice))
            if not tokens or tokens in labels:
                raise BadRequest(
                    f"the choice {choice!r:.60} is empty or there twice", param="structured_outputs.choice"
                )
            labels[tokens] = Label(choice, tokens)
        return tuple(labels.values())

    def _encode(self, messages: Sequence[Message]) -> list[int]:
        return self._format.encode(self._answers.recall(messages))

    def _routing(self, messages: Sequence[Message]) -> dict[str, Any]:
        from mixcli.engine.experts import routing

        if not messages or messages[-1].role != "assistant":
            raise BadRequest("the last message must be an answer of the assistant", param="messages")
        before = self._encode(messages[:-1])
        spoken = self._answers.recall([*messages, Message("user", "")])[len(messages) - 1]
        tokens = [*before, *(spoken.tokens or self._format.encode_answer(spoken.content))]
        return routing(self._loaded.model, self.placement, tokens, len(before))

    def _drop(self, call_id: str) -> None:
        if call_id in self._calls:
            self._engine.abort(call_id)

    def _share(self) -> None:
        """Divide the cores with the other models that compute now, and with other programs."""
        n_models, most = 1 + self._sharing.busy(), self._crowding.n_threads()
        wanted = self.placement.n_threads, self.placement.n_threads_batch
        n, n_batch = (max(1, min(one // n_models, most)) for one in wanted)
        if self._n_threads != (n, n_batch):
            self._n_threads = n, n_batch
            self._loaded.context.set_threads(n, n_batch)

    def _between_steps(self, work: Callable[[], T]) -> "Future[T]":
        """Do something in the engine's thread, once the model is loaded."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():  # its asker is gone
                return
            try:
                result = work()
            except Exception as error:
                future.set_exception(request_error(error))
            else:
                future.set_result(result)

        self._inbox.put(run)
        return future
