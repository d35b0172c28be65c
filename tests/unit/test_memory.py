"""The bounded memory of the time-series store."""

from services.influx.src.memory import Memory


def test_what_was_used_last_is_kept() -> None:
    memory: Memory[str, int] = Memory(2)
    memory.keep([("a", 1), ("b", 2)])
    assert memory.get("a") == 1
    memory.keep([("c", 3)])
    assert (memory.get("a"), memory.get("b"), memory.get("c")) == (1, None, 3)
    memory.forget("a")
    memory.forget("never kept")
    assert memory.get("a") is None
