"""What `bus validate` says about destinations: the running bus refuses the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bus_core.control_plane.sources.folder.check import check_manifests
from bus_core.data_plane.delivery import Target
from bus_core.data_plane.delivery.validation import validate_target
from bus_core.model.errors import PermanentError
from bus_core.model.resources import Subscription, from_object
from tests.sources.watcher import channel, write
from tests.support import manifest


def subscription(**spec: Any) -> dict[str, Any]:
    return manifest("Subscription", "s", **({"channel": "orders"} | spec))


@pytest.mark.parametrize(
    ("spec", "field", "says"),
    [
        ({"subscriber": "htp://x/"}, "subscriber", "scheme other than http and https"),
        ({"subscriber": "http://x:99999/"}, "subscriber", "port"),
        ({"subscriber": "not a host"}, "subscriber", "space"),
        ({"subscriber": "https://u:p@x/"}, "subscriber", "user information"),
        ({"replyTo": "x/y"}, "replyTo", "write http:// before it"),
        ({"subscriber": "x", "delivery": {"deadLetterSink": "a b"}}, "delivery.deadLetterSink", "space"),
        ({"subscriber": "x", "delivery": {"deadLetterSink": "orders"}}, "delivery.deadLetterSink", "itself"),
        (
            {"subscriber": "x", "delivery": {"deadLetterSink": "http://orders.default/"}},
            "delivery.deadLetterSink",
            "itself",
        ),
    ],
)
def test_a_destination_that_delivery_refuses(folder: Path, spec: dict[str, Any], field: str, says: str) -> None:
    write(folder / "a.yaml", channel("orders"), subscription(**spec))
    [error] = check_manifests([folder])[1]
    assert error.field == f"spec.{field}"
    assert error.line > 8, "a line of the second document"
    assert says in error.problem
    resource = from_object(subscription(**spec))
    assert isinstance(resource, Subscription)
    rules = resource.spec
    with pytest.raises(PermanentError) as refused:
        validate_target(Target(resource.channel, resource.reference, rules.subscriber, rules.reply_to, rules.delivery))
    assert str(refused.value) == error.problem


def test_a_sink_of_the_channel_may_not_be_the_channel(folder: Path) -> None:
    write(folder / "a.yaml", channel("orders", delivery={"deadLetterSink": "orders.default.svc.cluster.local"}))
    [error] = check_manifests([folder])[1]
    assert error.field == "spec.delivery.deadLetterSink"
    assert "the channel default/orders itself" in error.problem


def test_destinations_that_are_good(folder: Path) -> None:
    letters = subscription(subscriber="x", replyTo="http://[::1]:80/a?b", delivery={"deadLetterSink": "letters"})
    write(folder / "a.yaml", channel("orders"), channel("letters", delivery={"deadLetterSink": "orders"}), letters)
    assert check_manifests([folder])[1] == []
