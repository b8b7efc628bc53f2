"""Command line: `bus crds`, `bus manifests`. They print objects for kubectl, and do not talk to a cluster."""

from __future__ import annotations

import click

from bus_core import deploy
from bus_core.control_plane import crds as definitions
from bus_core.control_plane.crds import editor_schema
from bus_core.control_plane.crds.validation import DNS_LABEL
from bus_core.model.errors import ConfigurationError


@click.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(["yaml", "jsonschema"]),
    default="yaml",
    show_default=True,
    help="yaml: for a cluster. jsonschema: for an editor (draft-07).",
)
@click.option(
    "--delete-all-channels",
    is_flag=True,
    help="Print only the names, for kubectl delete -f -. This deletes every Bus, ClusterBus, Channel and Subscription.",
)
def crds(form: str, delete_all_channels: bool) -> None:
    """Print the CustomResourceDefinitions for kubectl apply -f -. All buses of a cluster share them."""
    if form == "jsonschema":
        if delete_all_channels:
            raise ConfigurationError("--delete-all-channels is for kubectl; remove --format jsonschema")
        click.echo(editor_schema.text(), nl=False)
        return
    if not delete_all_channels:
        click.echo(definitions.text(), nl=False)
        return
    click.echo(
        "Warning: kubectl delete on this output deletes every Bus, ClusterBus, Channel and Subscription"
        " of the cluster.",
        err=True,
    )
    click.echo(definitions.names_text(), nl=False)


@click.command()
@click.option("--driver", required=True, metavar="NAME", help="A driver that the image contains.")
@click.option("--bus", "name", default="demo", show_default=True, metavar="NAME", help="The bus to serve.")
@click.option("--namespace", default="default", show_default=True, help="Namespace of the Bus and its pods.")
@click.option("--image", default="bus-core:0.1.0", show_default=True, help="The image of the pods.")
@click.option("--cluster", is_flag=True, help="The bus is a ClusterBus, for channels of any namespace.")
def manifests(driver: str, name: str, namespace: str, image: str, cluster: bool) -> None:
    """Print the objects that one bus needs in a cluster.

    They are an account with its rights, the pods, and the Service in front of them. Use the output with
    kubectl apply -f - and kubectl delete -f -. The kinds are not included: see bus crds.
    """
    for what, value in (("--bus", name), ("--namespace", namespace)):
        if not DNS_LABEL.fullmatch(value) or len(value) > 50:
            raise click.BadParameter(f"{value!r} must be a DNS label of at most 50 characters", param_hint=what)
    click.echo(deploy.text(bus=name, namespace=namespace, driver=driver, image=image, cluster=cluster), nl=False)
