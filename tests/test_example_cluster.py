"""examples/cluster/cluster.yaml, against what the installed Ray takes."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

FOLDER = Path(__file__).parents[1] / "examples" / "cluster"


@pytest.fixture
def config() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / "cluster.yaml").read_text())
    return found


@pytest.fixture
def schema() -> dict[str, Any]:
    import ray.autoscaler

    text = (Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text()
    found: dict[str, Any] = json.loads(text)
    return found


def test_every_field_is_in_the_schema_of_ray(config: dict[str, Any], schema: dict[str, Any]) -> None:
    jsonschema.validate(config, schema)
    # The schema leaves the provider's fields open.
    assert config["provider"].keys() <= schema["properties"]["provider"]["properties"].keys()
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**config, "worker_commands": []}, schema)


def test_ray_fills_it_out_and_takes_it(config: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(config)
    validate_config(prepared)
    (kind,) = prepared["available_node_types"].values()
    assert kind["min_workers"] == kind["max_workers"] == len(config["provider"]["worker_ips"])


def test_its_commands_are_shell_and_start_every_node_with_the_token(config: dict[str, Any]) -> None:
    of = {name: commands for name, commands in config.items() if name.endswith("_commands")}
    assert {"setup_commands", "head_start_ray_commands", "worker_start_ray_commands"} <= of.keys()
    for commands in of.values():
        for command in commands:
            subprocess.run(["bash", "-n", "-c", command], check=True)
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        (start,) = [command for command in of[name] if "ray start" in command]
        assert "RAY_AUTH_MODE=token" in start.partition("ray start")[0]
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


def test_the_options_of_ray_start_are_there(config: dict[str, Any]) -> None:
    from ray.scripts.scripts import start

    known = {name for option in start.params for name in option.opts}
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        (command,) = [command for command in config[name] if "ray start" in command]
        given = shlex.split(command.partition("ray start")[2])
        assert {word.partition("=")[0] for word in given} <= known
