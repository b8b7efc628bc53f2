"""Which layer wins: flag, environment, secret file, settings file, default; for the host and for a driver alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, Field, SecretStr

from bus_core import DriverSettings
from bus_core.model.errors import ConfigurationError
from bus_core.settings.resolve import driver_sections, load_driver_settings, load_settings


class Nested(BaseModel):
    depth: int = 0


class SmallSettings(DriverSettings):
    """The settings of a driver with the name `my-bus`."""

    topic: str = "default"
    password: SecretStr | None = None
    limit: int = 0
    brokers: list[str] = Field([])
    config: dict[str, str] = Field({})
    counts: dict[str, int] = Field({})
    nested: Nested = Nested()
    other: str = Field("", alias="also")


class Place:
    """A settings file and a folder of secrets, and the driver's settings that follow from them."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "settings.yaml"
        self.secrets = folder / "secrets"
        self.secrets.mkdir()

    def write(self, text: str) -> None:
        self.file.write_text(text)

    def secret(self, name: str, text: str) -> None:
        (self.secrets / name).write_text(text)

    def load(self, **given: str) -> SmallSettings:
        flags = {"secrets_dir": self.secrets} | ({"config": self.file} if self.file.exists() else {})
        assignments = {name.replace("__", "."): value for name, value in given.items()}
        loaded = load_driver_settings(SmallSettings, "my-bus", assignments, load_settings(flags))
        assert loaded is not None
        return loaded


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


LAYERS = ["default", "file", "secret", "environment", "flag"]


@pytest.mark.parametrize("highest", range(len(LAYERS)), ids=LAYERS)
def test_the_highest_layer_of_a_driver_wins(place: Place, monkeypatch: pytest.MonkeyPatch, highest: int) -> None:
    if highest >= 1:
        place.write("my-bus:\n  topic: file\n")
    if highest >= 2:
        place.secret("MY_BUS_TOPIC", "secret\n")
    if highest >= 3:
        monkeypatch.setenv("MY_BUS_TOPIC", "environment")
    assert place.load(**({"topic": "flag"} if highest >= 4 else {})).topic == LAYERS[highest]


@pytest.mark.parametrize("highest", [0, 1, 3, 4], ids=[LAYERS[layer] for layer in (0, 1, 3, 4)])
def test_the_highest_layer_of_the_host_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, highest: int) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("log_format: human\n" if highest >= 1 else "")
    if highest >= 3:
        monkeypatch.setenv("BUS_LOG_FORMAT", "json")
    flags = {"config": path} | ({"log_format": "auto"} if highest >= 4 else {})
    settings = load_settings(flags)
    assert settings.log_format == {0: "auto", 1: "human", 3: "json", 4: "auto"}[highest]
    origins = {0: "--log-format", 1: f"{path}:1: log_format", 3: "BUS_LOG_FORMAT", 4: "--log-format"}
    assert settings.origin("log_format") == origins[highest]


def test_the_environment_and_a_secret_are_the_same_in_upper_and_lower_case(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("my_bus_limit", "7")
    place.secret("my_bus_password", " geheim\n")
    loaded = place.load()
    assert loaded.limit == 7
    assert loaded.password is not None
    assert loaded.password.get_secret_value() == "geheim"
    assert "geheim" not in repr(loaded)


def test_a_mapping_takes_keys_from_every_layer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.write("my-bus:\n  config:\n    a: file\n    b: file\n    c: file\n    d: file\n")
    place.secret("MY_BUS_CONFIG", '{"b": "secret", "c": "secret", "d": "secret"}')
    monkeypatch.setenv("MY_BUS_CONFIG", '{"c": "environment", "d": "environment"}')
    assert place.load(config__d="flag").config == {"a": "file", "b": "secret", "c": "environment", "d": "flag"}


def test_a_key_of_a_mapping_may_hold_dots(place: Place) -> None:
    assert place.load(config__linger__ms="5").config == {"linger.ms": "5"}


def test_text_is_json_where_a_setting_holds_several_values(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_BUS_BROKERS", '["a", "b"]')
    monkeypatch.setenv("MY_BUS_NESTED", '{"depth": 3}')
    loaded = place.load(config='{"a": "b"}')
    assert (loaded.brokers, loaded.nested.depth, loaded.config) == (["a", "b"], 3, {"a": "b"})


def test_a_setting_with_an_alias_is_named_by_it_in_every_layer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_BUS_ALSO", "environment")
    assert place.load().other == "environment"
    assert place.load(also="flag").other == "flag"


def test_the_settings_are_of_the_drivers_own_class(place: Place) -> None:
    assert type(place.load()) is SmallSettings


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"topic": "a", "topic.x": "b"}, "--set my-bus.topic and --set my-bus.topic.x both set topic"),
        ({"config.x": "b", "config": "{}"}, "--set my-bus.config.x and --set my-bus.config both set config"),
        ({"topic.x": "b"}, "--set my-bus.topic: input should be a valid string"),
        ({"config": "x"}, "--set my-bus.config: must be JSON"),
        ({"counts.a": "x"}, "--set my-bus.counts.a: input should be a valid integer"),
        ({"limt": "1"}, "--set my-bus.limt: there is no such setting; did you mean 'limit'?"),
        ({"limit": "x", "counts.a": "x"}, "; --set my-bus.counts.a: input should be"),
    ],
)
def test_a_wrong_assignment_is_one_sentence(given: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load_driver_settings(SmallSettings, "my-bus", given, load_settings({}))
    assert says in str(raised.value)


def test_a_wrong_key_is_named_in_the_layer_that_says_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.write("my-bus:\n  counts:\n    a: 1\n    b: x\n")
    monkeypatch.setenv("MY_BUS_COUNTS", '{"a": 2, "c": "y"}')
    with pytest.raises(ConfigurationError) as raised:
        place.load(counts__d="z")
    clauses = sorted(str(raised.value).split("; "))
    assert [clause.rpartition(": input")[0] for clause in clauses] == [
        "--set my-bus.counts.d",
        f"{place.file}:4: my-bus.counts.b",
        "MY_BUS_COUNTS.c",
    ]


@pytest.mark.parametrize(
    ("file", "name", "text"),
    [
        ("", "MY_BUS_LIMIT", "geheim"),
        ("", "MY_BUS_CONFIG", "{geheim"),
        ("", "MY_BUS_COUNTS", '{"a": "geheim"}'),
        ("my-bus: {counts: {a: geheim}}\n", "MY_BUS_TOPIC", "a"),
    ],
)
def test_no_error_holds_a_value(place: Place, file: str, name: str, text: str) -> None:
    place.write(file)
    place.secret(name, text)
    with pytest.raises(ConfigurationError) as raised:
        place.load()
    assert "geheim" not in str(raised.value)


def test_a_driver_without_settings_takes_none(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("none: {x: 1}\n")
    assert load_driver_settings(None, "none", {}, load_settings({})) is None
    for given, settings, place in (
        ({"a": "b"}, load_settings({}), "--set none.a"),
        ({}, load_settings({"config": path}), f"{path}:1: none.x"),
    ):
        with pytest.raises(ConfigurationError) as raised:
            load_driver_settings(None, "none", given, settings)
        assert str(raised.value) == f"the driver 'none' has no settings; remove {place}"


def test_a_section_may_be_empty_and_has_a_place(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("workers: 2\nkafka:\nmy-bus: {topic: x}\n")
    settings = load_settings({"config": path})
    assert settings.workers == 2
    assert driver_sections(settings) == {"kafka": f"{path}:2: kafka", "my-bus": f"{path}:3: my-bus"}


def test_the_environment_names_the_settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("workers: 3\nconfig: /nowhere\n")
    monkeypatch.setenv("BUS_CONFIG", str(path))
    settings = load_settings({})
    assert (settings.workers, settings.config, settings.origin("config")) == (3, path, "BUS_CONFIG")
