"""What a program sees of a running server."""

from __future__ import annotations

import asyncio
import io
import json
import re
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
import segno
from PIL import Image
from serving import Server, run, serve
from websockets.asyncio.client import connect

pytestmark = pytest.mark.asyncio(loop_scope="module")


def socket_url(server: Server, path: str) -> str:
    return f"{server.url}{path}".replace("http", "ws", 1)


async def event(socket: Any, kind: str) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            message: dict[str, Any] = json.loads(await socket.recv())
            if message["type"] == kind:
                return message
            assert not message["type"].startswith("error"), message


async def test_health_and_model(http: httpx.AsyncClient) -> None:
    assert (await http.get("/healthz")).json() == {"status": "up"}
    assert (await http.get("/readyz")).status_code == 200
    model = (await http.get("/v1/model")).json()
    assert model["sizes"] == ["64x64"]
    assert [word["name"] for word in model["vocabulary"]["scene"]] == ["sea", "mountains"]
    assert model["known_words"] == []
    assert model["capacity"] >= 1


async def test_what_the_checkpoint_knows_is_told_before_it_is_warm(tiny_model: Path) -> None:
    async with serve(tiny_model, ready=False) as server, httpx.AsyncClient(base_url=server.url) as http:
        async with asyncio.timeout(60):
            while (answer := await http.get("/readyz")).status_code == 503 and "vocabulary" not in answer.json():
                pass
        assert answer.status_code == 503
        assert [word["name"] for word in answer.json()["vocabulary"]["scene"]] == ["sea", "mountains"]
        await server.line("ready")


async def test_main_is_shared_and_has_a_page(http: httpx.AsyncClient, server: Server) -> None:
    main = (await http.get("/v1/streams/main")).json()
    assert (await http.get(f"/v1/streams/{main['id']}")).json()["id"] == main["id"]
    assert main["urls"]["page"] == f"{server.url}/"
    page = await http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "control_token" not in main


async def test_links_preview_the_prompt_and_the_picture(http: httpx.AsyncClient, server: Server) -> None:
    made = (await http.post("/v1/streams", json={"prompt": 'the <b>"sea"</b>'})).json()
    fresh = (await http.get(f"/s/{made['id']}")).text
    assert '<meta property="og:title" content="the &lt;b&gt;&quot;sea&quot;&lt;/b&gt;">' in fresh
    assert "og:image" not in fresh
    async with connect(socket_url(server, f"/v1/streams/{made['id']}/video"), max_size=None) as viewer:
        for _ in range(3):
            await viewer.recv()
    page = (await http.get(f"/s/{made['id']}")).text
    found = re.search('<meta property="og:image" content="(.*?)">', page)
    assert found is not None
    assert found[1].startswith(f"{server.url}/v1/streams/{made['id']}/poster.jpg")
    assert Image.open(io.BytesIO((await http.get(found[1])).content)).size == (1024, 1024)
    code = await http.get(f"/v1/streams/{made['id']}/qr.svg", params={"view": "watch"})
    assert code.headers["content-type"] == "image/svg+xml"
    expected = segno.make(f"{server.url}/s/{made['id']}?watch", error="m", micro=False)
    size = expected.symbol_size(border=3)[0]
    assert f'viewBox="0 0 {size} {size}"' in code.text
    await http.delete(f"/v1/streams/{made['id']}")
    for path in (f"/s/{made['id']}", "/s/str_none"):
        answer = await http.get(path)
        assert answer.status_code == 200, "the page itself says that it is over"
        assert "og:image" not in answer.text


async def test_steer_is_queued_locked_released(http: httpx.AsyncClient, server: Server) -> None:
    async with (
        connect(socket_url(server, "/v1/streams/main/video"), max_size=None) as viewer,
        connect(socket_url(server, "/v1/streams/main/events")) as events,
    ):
        await viewer.recv()
        draining = asyncio.create_task(drain(viewer))
        answer = await http.post("/v1/streams/main/steers", json={"prompt": "the sea at night"})
        assert answer.status_code == 202
        asked = answer.json()
        seen = [await event(events, f"steer.{stage}") for stage in ("queued", "locked", "released")]
        assert [one["data"]["id"] for one in seen] == [asked["id"]] * 3
        assert seen[2]["picture"] == seen[2]["data"]["at_picture"] == asked["at_picture"]
        assert [one["seq"] for one in seen] == sorted(one["seq"] for one in seen)
        assert (await http.get("/v1/streams/main")).json()["prompt"] == "the sea at night"
        listed = (await http.get("/v1/streams/main/steers")).json()["steers"]
        assert listed[-1]["id"] == asked["id"]
        assert listed[-1]["status"] == "released"
        draining.cancel()


async def drain(socket: Any) -> None:
    async for _ in socket:
        pass


async def test_steer_over_the_socket(server: Server) -> None:
    async with connect(socket_url(server, "/v1/streams/main/events")) as events:
        await events.send(json.dumps({"type": "steer", "ref": 7, "prompt": "snowy mountains by day"}))
        accepted = await event(events, "steer.accepted")
        assert (accepted["ref"], accepted["data"]["prompt"]) == (7, "snowy mountains by day")
        await events.send(json.dumps({"type": "steer", "ref": 8, "prompt": ""}))
        await events.send(json.dumps({"type": "dance"}))
        await events.send("no json")
        await events.send("[" * 60_000)
        codes = []
        async with asyncio.timeout(30):
            while len(codes) < 4:
                message = json.loads(await events.recv())
                if message["type"] == "error":
                    codes.append(message["data"]["code"])
        assert codes == ["prompt-empty", "message-unknown", "message-malformed", "message-malformed"]


async def test_events_resume(http: httpx.AsyncClient, server: Server) -> None:
    path = "/v1/streams/main/events"
    async with connect(socket_url(server, f"{path}?after=0")) as events:
        body = {"prompt": "night falls", "at": {"in_s": 300}}
        asked = (await http.post("/v1/streams/main/steers", json=body)).json()
        queued = await event(events, "steer.queued")
    await http.delete(f"/v1/streams/main/steers/{asked['id']}")  # nobody listens
    async with connect(socket_url(server, f"{path}?after={queued['seq']}")) as events:
        first = json.loads(await events.recv())
        assert first["seq"] == queued["seq"] + 1
        missed = first if first["type"] == "steer.cancelled" else await event(events, "steer.cancelled")
        assert missed["data"]["id"] == asked["id"]


async def test_waiting_steer_can_be_taken_back(http: httpx.AsyncClient) -> None:
    body = {"prompt": "night falls", "at": {"in_s": 300}}
    asked = (await http.post("/v1/streams/main/steers", json=body)).json()
    assert asked["status"] == "queued"
    path = f"/v1/streams/main/steers/{asked['id']}"
    assert (await http.delete(path)).status_code == 204
    again = await http.delete(path)
    assert (again.status_code, again.json()["code"]) == (409, "steer-locked")


async def test_a_log_makes_a_stream(http: httpx.AsyncClient) -> None:
    made = (await http.post("/v1/streams", json={"prompt": "the sea at night", "seed": 11})).json()
    log = (await http.get(f"/v1/streams/{made['id']}/log")).text
    again = await http.post("/v1/streams", json={"log": log})
    assert again.status_code == 201
    body = again.json()
    assert (body["seed"], body["prompt"], body["size"]) == (11, "the sea at night", "64x64")
    assert again.headers["location"] == f"/v1/streams/{body['id']}"
    for id in (made["id"], body["id"]):
        await http.delete(f"/v1/streams/{id}")


async def test_full_only_when_all_are_watched(tiny_model: Path) -> None:
    async with serve(tiny_model, "--max-streams", "1") as server, httpx.AsyncClient(base_url=server.url) as http:
        # Nobody watches main: it yields its slot to a new stream.
        assert (await http.post("/v1/streams", json={"prompt": "the sea"})).status_code == 201
        async with connect(socket_url(server, "/v1/streams/main/video"), max_size=None) as viewer:
            await viewer.recv()
            refused = await http.post("/v1/streams", json={"prompt": "the sea"})
            body = refused.json()
            assert (refused.status_code, body["code"], body["limit"]) == (503, "capacity-full", 1)
            assert body["streams"] == ["main"]
            assert int(refused.headers["retry-after"]) >= 1
            # A second viewer of main is no second stream.
            async with connect(socket_url(server, "/v1/streams/main/video"), max_size=None) as second:
                assert json.loads(await second.recv())["type"] == "hello"


async def test_worker_killed(tiny_model: Path) -> None:
    """Streams fail with their log kept; main goes on from its last snapshot; readyz says 503 meanwhile."""
    import psutil

    async with serve(tiny_model, "--max-streams", "2") as server, httpx.AsyncClient(base_url=server.url) as http:
        other = (await http.post("/v1/streams", json={"prompt": "the sea", "idle": "run"})).json()
        async with (
            connect(socket_url(server, "/v1/streams/main/video"), max_size=None) as viewer,
            connect(socket_url(server, "/v1/streams/main/events?after=0")) as events,
        ):
            await viewer.recv()
            draining = asyncio.create_task(drain(viewer))
            while (await event(events, "clock"))["picture"] < 100:
                pass
            workers = [
                child
                for child in psutil.Process(server.process.pid).children()
                if "worker" in " ".join(child.cmdline())
            ]
            assert len(workers) == 1
            workers[0].send_signal(signal.SIGKILL)
            stopped = await event(events, "stream.status")
            while stopped["data"]["status"] != "starting" or stopped["seq"] < 5:
                stopped = await event(events, "stream.status")
            assert (await http.get("/readyz")).status_code == 503
            gone = await http.get(f"/v1/streams/{other['id']}")
            assert (gone.status_code, gone.json()["code"]) == (410, "stream-ended")
            assert (await http.get(f"/v1/streams/{other['id']}/log")).status_code == 200
            before = stopped["picture"]
            while (await event(events, "stream.status"))["data"]["status"] != "live":
                pass
            assert (await event(events, "clock"))["picture"] >= before
            assert (await http.get("/readyz")).status_code == 200
            draining.cancel()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_in_the_first_moment_ends_cleanly(tiny_model: Path, number: signal.Signals) -> None:
    async with serve(tiny_model, ready=False) as server:
        server.process.send_signal(number)
        async with asyncio.timeout(30):
            assert await server.process.wait() == 0


async def test_sigterm_ends_cleanly(tiny_model: Path) -> None:
    import psutil

    async with serve(tiny_model) as server:
        children = psutil.Process(server.process.pid).children(recursive=True)
        async with connect(socket_url(server, "/v1/streams/main/video"), max_size=None) as viewer:
            await viewer.recv()
            assert await server.stop() == 0
        assert psutil.wait_procs(children, timeout=10)[1] == []


@pytest.mark.parametrize("damage", ["missing", "truncated", "no transformer"])
async def test_bad_model_folder_is_one_line(tiny_model: Path, tmp_path: Path, damage: str) -> None:
    import shutil

    folder = tmp_path / "model"
    if damage != "missing":
        shutil.copytree(tiny_model, folder)
        weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
        if damage == "truncated":
            weights.write_bytes(weights.read_bytes()[:-100])
        else:
            shutil.rmtree(folder / "transformer")
    status, text = await run("serve", "--model", str(folder), "--port", "0", only_errors=True)
    assert status == 2
    assert len(text.splitlines()) == 1, text
    assert str(folder) in text


async def test_bad_first_prompt_is_one_line(tiny_model: Path) -> None:
    status, text = await run(
        "serve", "--model", str(tiny_model), "--port", "0", "--prompt", "x" * 5000, only_errors=True
    )
    assert (status, len(text.splitlines())) == (2, 1), text
    assert "--prompt" in text


async def test_port_in_use_is_one_line(server: Server) -> None:
    port = server.url.rpartition(":")[2]
    status, text = await run("serve", "--port", port, only_errors=True)
    assert (status, len(text.splitlines())) == (2, 1)
    assert port in text


@pytest.mark.parametrize(
    "option", [("--port", "70000"), ("--rate-hz", "0"), ("--threads", "0"), ("--seed", "-1"), ("--x",)]
)
async def test_bad_option_is_one_line(option: tuple[str, ...]) -> None:
    status, text = await run("serve", *option, only_errors=True)
    assert (status, len(text.splitlines())) == (2, 1)
    assert option[0] in text


async def test_guidance_motion_and_negative_prompt_of_a_stream(http: httpx.AsyncClient, server: Server) -> None:
    limits = (await http.get("/v1/model")).json()["limits"]
    assert limits["guidance_scale"] == 20
    wanted = {"prompt": "the sea", "guidance_scale": 3, "negative_prompt": "fog", "motion_score": 5, "idle": "end"}
    answer = await http.post("/v1/streams", json=wanted | {"rate_hz": limits["guidance_rate_hz"]})
    assert answer.status_code == 201, answer.text
    created = answer.json()
    assert {name: created[name] for name in wanted} == wanted
    (warning,) = created["warnings"]
    assert warning.startswith("motion_score")
    path, headers = f"/v1/streams/{created['id']}", {"Authorization": f"Bearer {created['control_token']}"}
    async with (
        connect(socket_url(server, f"{path}/video"), max_size=None) as viewer,
        connect(socket_url(server, f"{path}/events"), additional_headers=headers) as events,
    ):
        await viewer.recv()
        draining = asyncio.create_task(drain(viewer))
        plain = {"prompt": "rain", "guidance_scale": 1, "motion_score": 0}
        asked = (await http.post(f"{path}/steers", json=plain, headers=headers)).json()
        assert any(warning.startswith("negative_prompt has no effect") for warning in asked["warnings"])
        assert (await event(events, "steer.released"))["data"]["id"] == asked["id"]
        shown = (await http.get(path)).json()
        assert (shown["guidance_scale"], shown["negative_prompt"], shown["motion_score"]) == (1, "fog", 0)
        again = {"type": "steer", "ref": 1, "prompt": "the sea", "guidance_scale": 2.5, "negative_prompt": ""}
        await events.send(json.dumps(again))
        accepted = (await event(events, "steer.accepted"))["data"]
        assert (accepted["guidance_scale"], accepted["negative_prompt"]) == (2.5, "")
        await event(events, "steer.released")
        draining.cancel()
    lines = [json.loads(line) for line in (await http.get(f"{path}/log")).text.splitlines()]
    assert [line["guidance_scale"] for line in lines] == [3, 1, 2.5]
    refused = (await http.post(f"{path}/steers", json={"prompt": "x", "guidance_scale": 21}, headers=headers)).json()
    assert (refused["status"], refused["field"], refused["limit"]) == (422, "guidance_scale", [1.0, 20.0])
    await http.delete(path, headers=headers)
