"""The compose file and the images, as far as that can be known without a Docker engine.

What Compose itself would refuse is checked against the part of its specification that the file uses; every service's
command and health check run as plain processes with the service's own environment.
"""

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest
import yaml

from storage.embedded import EmbeddedRedis
from tests.platforms import telegram_server
from tests.platforms.discord_server import TOKEN as DISCORD_TOKEN
from tests.platforms.discord_server import DiscordServer

ROOT = Path(__file__).parent.parent
FILE = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
STAGES = re.split(r"(?m)^FROM ", (ROOT / "Dockerfile").read_text("utf-8"))[1:]
HEAVY = re.compile(r"(?m)^(torch|diffusers|transformers|accelerate|peft|dlib-bin|numpy|triton|nvidia-[\w-]+)==")

# Source of names and types: the Compose Specification, "Services top-level element", "Healthcheck" and "deploy".
KEYS: dict[str, type | tuple[type, ...]] = {
    "image": str, "build": dict, "command": list, "restart": str, "user": str, "init": bool, "cap_drop": list,
    "security_opt": list, "env_file": list, "environment": dict, "volumes": list, "depends_on": dict, "ports": list,
    "profiles": list, "healthcheck": dict, "stop_grace_period": str, "deploy": dict,
}  # fmt: skip


def test_the_file_is_as_compose_wants_it() -> None:
    assert set(FILE) - {"services", "volumes"} == {key for key in FILE if key.startswith("x-")}
    for name, service in SERVICES.items():
        assert re.fullmatch(r"[a-zA-Z0-9._-]+", name)
        for key, value in service.items():
            assert key in KEYS and isinstance(value, KEYS[key]), f"{name}: {key}"
        assert all(isinstance(word, str) for word in service.get("command", [])), name
        assert set(service.get("depends_on", {})) <= set(SERVICES)
        for other in service.get("depends_on", {}).values():
            assert other == {"condition": "service_healthy"}
        for volume in service.get("volumes", ()):
            assert volume.partition(":")[0] in FILE["volumes"]
        check = service["healthcheck"]
        assert set(check) == {"test", "interval", "timeout", "retries"} and check["test"][0] == "CMD"
        assert all(re.fullmatch(r"\d+s", check[key]) for key in ("interval", "timeout"))
        assert isinstance(check["retries"], int)
        for port in service.get("ports", ()):
            assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), "nothing listens to other machines"
    assert set(SERVICES) == {"redis", "bot-discord", "bot-telegram", "chat", "engine", "engine-cpu"}


def test_nothing_runs_as_root_or_can_become_it() -> None:
    for name, service in SERVICES.items():
        assert int(service["user"].partition(":")[0]) > 0, name
        assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges:true"]), name
    for stage in STAGES[1:]:
        assert re.search(r"(?m)^USER avatar$", stage)


def test_secrets_come_from_the_environment_file_alone() -> None:
    for name, service in SERVICES.items():
        assert not [key for key in service.get("environment", {}) if re.search(r"TOKEN|KEY|PASSWORD", key)]
        if name != "redis":
            assert service["env_file"] == [{"path": ".env", "required": False}]
    assert ".env" in (ROOT / ".dockerignore").read_text("utf-8").split()


def test_every_image_can_be_built_from_what_is_here() -> None:
    stages = {stage.partition("\n")[0].rpartition(" ")[2]: stage for stage in STAGES}
    for name, service in SERVICES.items():
        if name != "redis":
            assert service["build"]["target"] in stages
    for stage in stages.values():
        for copied in re.findall(r"(?m)^COPY (\S+) ", stage):
            assert (ROOT / copied).exists(), copied
            assert copied not in (ROOT / ".dockerignore").read_text("utf-8").split()


def test_the_bots_image_has_no_torch() -> None:
    [bot] = [stage for stage in STAGES if stage.startswith("base AS bot\n")]
    assert re.findall(r"-r (\S+)", bot) == ["requirements-bot.lock"]
    assert re.findall(r"(?m)^COPY (\S+) ", bot) == ["requirements-bot.lock", "LICENSE", "storage", "bot"]
    assert HEAVY.findall((ROOT / "requirements-bot.lock").read_text("utf-8")) == []
    # The same words find what they look for where it is.
    assert "torch" in HEAVY.findall((ROOT / "requirements.lock").read_text("utf-8"))


def test_one_engine_has_a_gpu_and_the_other_needs_none() -> None:
    [device] = SERVICES["engine"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert "deploy" not in SERVICES["engine-cpu"]
    assert [SERVICES[name]["profiles"] for name in ("engine", "engine-cpu")] == [["gpu"], ["cpu"]]


READY = {
    "bot-discord": b"Talking on Discord as",
    "bot-telegram": b"The bot is at",
    "chat": b"The chat is open at",
    "engine-cpu": b"The engine is ready",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", READY)
async def test_each_service_starts_is_healthy_and_stops(name: str, tmp_path: Path, unused_tcp_port: int) -> None:
    redis = EmbeddedRedis(tmp_path / "redis")
    url, telegram = await redis.ensure(), telegram_server.Server()
    try:
        async with DiscordServer() as discord, telegram_server.served(telegram, 0) as telegram_url:
            service = SERVICES[name]
            environment = {
                "PATH": os.environ["PATH"],
                "OMP_NUM_THREADS": "1",
                **service["environment"],
                # In place of what the network and the volume of Compose would give.
                "AVATAR_REDIS_URL": url,
                "AVATAR_HOME": str(tmp_path / "data"),
                "AVATAR_HEALTH_FILE": str(tmp_path / "alive"),
                "AVATAR_DISCORD_TOKEN": DISCORD_TOKEN,
                "AVATAR_DISCORD_API_URL": discord.api,
                "AVATAR_DISCORD_GATEWAY_URL": discord.gateway,
                "AVATAR_TELEGRAM_TOKEN": telegram_server.TOKEN,
                "AVATAR_TELEGRAM_API_URL": telegram_url,
            }

            def as_here(words: list[str]) -> list[str]:
                words = [word.replace("8765", str(unused_tcp_port)) for word in words]
                return [sys.executable if word == "python" else word for word in words]

            async def status() -> int:
                """The health check's."""
                check = await asyncio.create_subprocess_exec(
                    *as_here(service["healthcheck"]["test"][1:]), cwd=ROOT, env=environment, stderr=PIPE
                )
                await check.communicate()
                return int(check.returncode or 0)

            process = await asyncio.create_subprocess_exec(
                *as_here(service["command"]), cwd=ROOT, env=environment, stdout=PIPE, stderr=PIPE
            )
            assert process.stdout
            async with asyncio.timeout(180):
                assert (await process.stdout.readline()).startswith(READY[name])
                while await status() != 0:
                    await asyncio.sleep(0.5)
                if name.startswith("bot-"):
                    process.send_signal(signal.SIGSTOP)
                    while await status() == 0:
                        await asyncio.sleep(0.5)
                    process.send_signal(signal.SIGCONT)
                    while await status() != 0:
                        await asyncio.sleep(0.5)
                process.terminate()
                _, complaints = await process.communicate()
            # The engine logs how its GPU process fares.
            assert process.returncode == 0 and b"Traceback" not in complaints and b"ERROR" not in complaints
            if name == "chat":
                assert await status() != 0, "who has gone is not healthy"
        assert discord.faults == [] and telegram.faults == []
    finally:
        await redis.release()


def test_models_from_the_hub_are_kept_in_the_data_volume() -> None:
    """The user of the images has no home, where the hub's library would write otherwise."""
    assert "AVATAR_HOME=/data HF_HOME=/data/huggingface" in STAGES[0]
