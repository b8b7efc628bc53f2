"""Arguments that nobody declares, and parameters as good as they can be known at a channel's end."""

from __future__ import annotations

from collections.abc import Sequence

from bus_core.model.errors import ParameterError
from bus_core.model.parameters import Parameter, ParameterScope, ResolvedParameters, resolve_parameters
from bus_core.model.resources import AnyBus, Channel, Subscription


def ignored_arguments(declared: Sequence[Parameter], bus: AnyBus | None, resource: Channel | Subscription) -> str:
    """A sentence for the condition; empty when every argument is declared by driver or bus."""
    scope: ParameterScope = "channel" if isinstance(resource, Channel) else "subscription"
    known = {
        parameter.name for parameter in (*declared, *(bus.spec.parameters if bus else ())) if parameter.scope == scope
    }
    unknown = sorted(set(resource.spec.arguments) - known)
    return f"ignored, because nobody declares them: {', '.join(unknown)}" if unknown else ""


def last_parameters(declared: Sequence[Parameter], bus: AnyBus | None, channel: Channel) -> ResolvedParameters:
    """For an unprovision in a process that never provisioned: as good as can be known, and never an error."""
    try:
        own = bus.spec.parameters if bus else ()
        return resolve_parameters("channel", declared, own, arguments=channel.spec.arguments)[0]
    except ParameterError:
        return dict(channel.spec.arguments)
