from __future__ import annotations

from agentnb import events, requests


def test_a_request_goes_over_the_wire_under_its_name() -> None:
    assert requests.Cancel(["r1"], "not needed").to_wire() == {"type": "cancel", "run_ids": ["r1"], "reason": "not needed"}


def test_requests_and_events_share_one_table_of_names() -> None:
    wire = requests.SendInput(request_id=7, run_id="r", text="höö\0\n", eof=True).to_wire()
    assert events.from_wire(wire) == requests.SendInput(7, "r", "höö\0\n", True)


def test_a_request_that_wants_an_answer_carries_a_request_id() -> None:
    for cls in (requests.EndSession, requests.SendInput, requests.Flush, requests.Ping):
        assert "request_id" in cls.__dataclass_fields__


def test_the_reason_of_a_shutdown_reads_as_a_sentence_part() -> None:
    assert requests.Shutdown().reason == "the notebook's process ended"
