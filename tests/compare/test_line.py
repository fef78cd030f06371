from __future__ import annotations

from contextlib import ExitStack

from compare.line import Line, Ticket, Waiting


def order(owners: str) -> str:
    """Who is served when these come in this order while the first one is being served."""
    line = Line()
    with ExitStack() as stack:
        for number, owner in enumerate(owners):
            stack.enter_context(line.turn(Ticket(owner=f"{owner}" if owner != "-" else "")))
            assert number < len(line._tickets)
        return "".join(ticket.owner or "-" for ticket in line._tickets)


def test_who_comes_first_is_served_first() -> None:
    assert order("abc") == "abc"
    assert order("---") == "---"


def test_a_second_ticket_stands_behind_everybodys_first() -> None:
    assert order("aaab") == "abaa"
    assert order("aaabb") == "ababa"
    assert order("abab") == "abab"
    assert order("aaabcb") == "abcaba"


def test_the_one_who_is_served_is_never_overtaken() -> None:
    assert order("ab")[0] == "a" and order("aab")[0] == "a"


def test_the_place_is_told_and_giving_up_moves_the_others() -> None:
    line = Line()
    first, second, third = Ticket(), Ticket(), Ticket()
    with line.turn(first) as now, line.turn(second) as later, line.turn(third) as last:
        assert list(now) == [] and next(last) == Waiting(2)
        assert not line.give_up(second) and list(later) == []
        assert next(last) == Waiting(2)  # it is still leaving
        assert line.give_up(first)
    assert line.empty
