"""Monitor: the parameters in force for a channel, also at its end, and the arguments that nothing declares."""

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


def parameters_in_force(
    declared: Sequence[Parameter], bus: AnyBus | None, channel: Channel
) -> ResolvedParameters | None:
    """The parameters that a channel was provisioned with, in every process: its status has them.

    A parameter that driver or bus declare since then gets its default. A status that an earlier version wrote has no
    parameters: then those count that the channel asks for.

    Returns:
        None if a parameter that is required since then has no value.
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
    """For `unprovision`, also in a process that never provisioned: as good as can be known, and never an error."""
    in_force = parameters_in_force(declared, bus, channel)
    if in_force is not None:
        return in_force
    return dict(channel.provisioned_parameters or channel.spec.arguments)
