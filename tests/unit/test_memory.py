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
    assert memory.get_all(["a", "c"]) == [None, 3]


def test_heavy_keys_take_more_room() -> None:
    memory: Memory[str, int] = Memory(6, len)
    memory.keep([("aa", 1), ("bb", 2), ("bb", 3), ("c", 4)])
    memory.keep([("dd", 5)])
    assert memory.get_all(["aa", "bb", "c", "dd"]) == [None, 3, 4, 5]
    memory.forget("bb")
    memory.keep([("eee", 6)])
    assert memory.get_all(["c", "dd", "eee"]) == [4, 5, 6]
    memory.keep([("too long", 7)])
    assert memory.get("too long") is None
