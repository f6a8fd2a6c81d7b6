"""Carry out what the prefix cache decides: on llama.cpp's cells, and on the disk."""

from collections.abc import Callable
from functools import partial

from mixcli.engine.faults import survived
from mixcli.engine.kv_store import KvEntry, KvStore
from mixcli.engine.prefix_cache import Clear, Copy, PrefixCache, Save, Truncate
from mixcli.llama.context import Context

MIN_RESTORE = 64  # tokens that disk must have beyond the cache to be worth a read


class KvMemory:
    """The cells of a context as `cache` has them; `store` keeps texts on disk for the next process, None keeps none."""

    def __init__(self, context: Context, cache: PrefixCache, store: KvStore | None) -> None:
        self._context, self._cache, self._store = context, cache, store

    @property
    def is_persistent(self) -> bool:
        """Return whether texts can be kept on disk."""
        return self._store is not None

    def apply(self) -> None:
        """Apply what the cache has decided since the last call."""
        for operation in self._cache.take_operations():
            match operation:
                case Copy(source, target, n_tokens):
                    self._context.copy(source, target, n_tokens)
                case Truncate(slot, n_tokens):
                    self._context.truncate(slot, n_tokens)
                case Save():
                    self._save(operation)
                case Clear():
                    self._context.clear()

    def can_continue(self, slot: int, n_tokens: int) -> bool:
        """Return whether a text may continue after the first `n_tokens` of a slot (Context.can_continue), after what was decided before."""
        if not self._context.n_window:
            return True
        self.apply()
        return self._context.can_continue(slot, n_tokens)

    def check(self) -> None:
        """Raise AssertionError where the cache and llama.cpp's cells differ; for tests, between two steps."""
        self.apply()
        self._cache.check()
        for slot in range(self._context.n_sequences):
            assert self._context.n_cached(slot) == self._cache.length(slot), f"slot {slot}"

    def unchecked(self, prompt: tuple[int, ...]) -> Callable[[], object] | None:
        """Return what checks the text on disk that a prompt begins with, which may take seconds; None where there is nothing to check.

        May be used from any thread, as what it returns.
        """
        store = self._store
        entry = store.find(prompt) if store is not None else None
        if store is None or entry is None or entry.n_shared < MIN_RESTORE or store.is_checked(entry):
            return None
        return partial(store.check, entry)

    def find(self, tokens: list[int]) -> KvEntry | None:
        """Return the text on disk that is worth a read for a prompt: much longer than the cached prefix, and with room for it."""
        if self._store is None:
            return None
        entry = self._store.find(tokens)
        if entry is None or entry.n_shared - self._cache.match(tokens) < MIN_RESTORE:
            return None
        return entry if self._cache.make_room(entry.n_tokens) else None

    def restore(self, entry: KvEntry) -> None:
        """Load a text from disk into a slot that is retained; remove the entry if it is damaged."""
        slot = self._cache.open()
        if slot is None or self._store is None:
            return
        restored = False
        try:
            self.apply()
            restored = self._store.check(entry) and self._context.restore(slot, entry.n_tokens, entry.path)
            if not restored:
                self._store.forget(entry)
        finally:
            if restored:
                self._cache.extend(slot, entry.tokens)
                self._cache.retain(slot, save=True)
            else:
                self._cache.release(slot)

    def close(self) -> None:
        """Write to disk what must outlive the process."""
        self.apply()
        for save in self._cache.to_save():
            self._save(save)
            if self._store is not None:
                self._store.flush()

    def _save(self, save: Save) -> None:
        if self._store is not None:
            with survived():
                context, slot, tokens = self._context, save.slot, save.tokens
                self._store.save(
                    tokens, partial(context.state_size, slot), partial(context.save, slot, tokens)
                )
