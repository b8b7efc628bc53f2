"""When the next try comes: the two policies with full jitter, their cap, and what a subscriber asks for."""

from __future__ import annotations

import datetime as dt
import email.utils
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_core.data_plane.delivery.backoff import MAX_BACKOFF, delay, is_retryable, retry_after
from bus_core.model.errors import DeadlineError, DispatchError, ResponseError
from bus_core.model.specs import DeliverySpec

BackoffPolicy = Literal["linear", "exponential"]
NOW = dt.datetime(2030, 1, 2, 3, 4, 5, tzinfo=dt.UTC)


def spec(policy: BackoffPolicy = "exponential", base: float = 0.2) -> DeliverySpec:
    return DeliverySpec(backoff_policy=policy, backoff_delay=base)


def highest() -> float:
    return 1.0


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 0.2), (2, 0.4), (3, 0.8), (5, 3.2), (9, 30.0), (5000, 30.0)])
def test_exponential(attempt: int, seconds: float) -> None:
    assert delay(attempt, spec(), highest) == pytest.approx(seconds)


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 0.2), (2, 0.4), (3, 0.6), (10, 2.0), (1000, 30.0)])
def test_linear(attempt: int, seconds: float) -> None:
    assert delay(attempt, spec("linear"), highest) == pytest.approx(seconds)


@given(
    st.integers(1, 100),
    st.floats(0, 100),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(["linear", "exponential"]),
)
def test_full_jitter(attempt: int, base: float, random: float, policy: BackoffPolicy) -> None:
    top = delay(attempt, spec(policy, base), highest)
    assert 0 <= delay(attempt, spec(policy, base), lambda: random) <= top <= MAX_BACKOFF
    assert delay(attempt, spec(policy, base), lambda: 0.0) == 0


def asks(value: str | None, status: int = 503, limit: float = 60.0) -> float:
    headers = {} if value is None else {"retry-after": value}
    return retry_after(ResponseError("http://x/", status, headers), limit, NOW)


def in_form(moment: dt.datetime, form: str) -> str:
    return email.utils.format_datetime(moment, usegmt=True) if form == "fixdate" else moment.strftime(form)


@pytest.mark.parametrize("form", ["fixdate", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"])
def test_the_three_date_forms_of_rfc_9110(form: str) -> None:
    assert asks(in_form(NOW + dt.timedelta(seconds=20), form)) == 20


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("7", 7),
        ("  7 ", 7),
        ("0", 0),
        ("61", 60),
        ("9" * 400, 60),
        ("-1", 0),
        ("1.5", 0),
        ("\u0661", 0),
        ("soon", 0),
        ("Wed, 99 Foo 2030 00:00:00 GMT", 0),
        ("Wed, 21 Oct 2015 07:28:00 +99999999999999999999", 0),
        ("Wed, 21 Oct 99999999999999999999 07:28:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 60),
        (in_form(NOW - dt.timedelta(hours=1), "fixdate"), 0),
        (in_form(NOW + dt.timedelta(hours=1), "fixdate"), 60),
    ],
)
def test_retry_after(value: str | None, seconds: float) -> None:
    assert asks(value) == seconds


@given(
    st.text(max_size=60) | st.from_regex(r"[A-Z][a-z]{2}, \d{1,25} [A-Z][a-z]{2} \d{1,25} [\d:]{1,12} [+-]?\w{1,25}")
)
def test_whatever_it_says_it_is_a_wait(value: str) -> None:
    assert 0 <= asks(value) <= 60


@pytest.mark.parametrize(("status", "seconds"), [(429, 7), (503, 7), (500, 0), (404, 0), (400, 0), (302, 0)])
def test_only_where_it_means_something(status: int, seconds: float) -> None:
    assert asks("7", status) == seconds


@pytest.mark.parametrize("error", [DispatchError("reset"), DeadlineError("late")])
def test_no_answer_is_tried_again(error: Any) -> None:
    assert is_retryable(error)
    assert retry_after(error, 60.0, NOW) == 0
