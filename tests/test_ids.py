from __future__ import annotations

import threading
import time
import uuid

from agentnb import ids


def test_an_id_is_a_version_7_uuid_in_canonical_text() -> None:
    text = ids.new_id()
    parsed = uuid.UUID(text)
    assert str(parsed) == text
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)


def test_the_stamp_of_an_id_is_the_time_it_was_made() -> None:
    before = time.time_ns() // 1_000_000
    stamp = uuid.UUID(ids.new_id()).int >> 80
    assert before <= stamp <= time.time_ns() // 1_000_000 + 1


def test_ids_made_later_sort_later_however_fast_they_are_made() -> None:
    made = [ids.new_id() for _ in range(20_000)]
    assert made == sorted(set(made))


def test_ids_of_many_threads_are_unique_and_sorted_within_each() -> None:
    made: list[list[str]] = [[] for _ in range(4)]
    threads = [threading.Thread(target=lambda own=own: own.extend(ids.new_id() for _ in range(3000))) for own in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(own == sorted(own) for own in made)
    assert len({text for own in made for text in own}) == 12_000


def test_a_clock_that_steps_back_does_not_break_the_order(monkeypatch) -> None:
    first = ids.new_id()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert first < ids.new_id() < ids.new_id()
