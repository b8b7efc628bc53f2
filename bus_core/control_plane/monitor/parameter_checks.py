"""Monitor: the parameters in force for a channel, also at its end, and the arguments that nothing declares."""

from __future__ import annotations

from collections.abc import Sequence

from bus_core.model.errors import ParameterError
from bus_core.model.parameters import Parameter, ParameterScope, ResolvedParameters, resolve_parameters
from bus_core.model.resources import AnyBus, Channel, Subscription


def ignored_arguments(declared: Sequence[Parameter], bus: AnyBus | None, resource: Channel | Subscription) -> str:
    """A sentence for the condition; empty if driver or bus declare every argument."""
    scope: ParameterScope = "channel" if isinstance(resource, Channel) else "subscription"
    known = {
        parameter.name for parameter in (*declared, *(bus.spec.parameters if bus else ())) if parameter.scope == scope
    }
    unknown = sorted(set(resource.spec.arguments) - known)
    return f"ignored, because neither driver nor bus declares them: {', '.join(unknown)}" if unknown else ""


def parameters_in_force(
    declared: Sequence[Parameter], bus: AnyBus | None, channel: Channel
) -> ResolvedParameters | None:
    """The parameters of the channel's last `provision`. They come from its status, so all processes agree.

    A parameter that driver or bus declared later gets its default. A status of an earlier version has no parameters;
    then the channel's arguments count.

    Returns:
        None if a parameter that became required later has no value.
    """
    provisioned = channel.provisioned_parameters
    arguments = channel.spec.arguments if provisioned is None else provisioned
    own = bus.spec.parameters if bus else ()
    try:
        resolved, _ = resolve_parameters("channel", declared, own, arguments=arguments)
    except ParameterError:
        return None
    return {**resolved, **(provisioned or {})}


def last_parameters(declared: Sequence[Parameter], bus: AnyBus | None, channel: Channel) -> ResolvedParameters:
    """The best known parameters for `unprovision`, also in a process that never provisioned. Never an error."""
    in_force = parameters_in_force(declared, bus, channel)
    if in_force is not None:
        return in_force
    return dict(channel.provisioned_parameters or channel.spec.arguments)
