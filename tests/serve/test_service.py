"""The application: what it answers, what it refuses, how much it lets through."""

import contextlib
import json
import math
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import torch
import uvicorn
from limits.errors import StorageError
from safetensors.torch import load, save

from undistill.blackbox import (
    ANSWERS_PATH,
    FULL,
    MODEL_PATH,
    TENSORS_PATH,
    BlackBox,
    LocalBlackBox,
    RemoteBlackBox,
    TopK,
    defend,
    open_black_box,
)
from undistill.defences.output import OUTPUT_DEFENCES
from undistill.errors import InputError
from undistill.models import make_classifier
from undistill.serve import Clients, Meter, create_app, read_keys, service
from undistill.tasks import load_task

SHAPE, KEY = (1, 8, 8), "a-key-of-enough-characters"


@pytest.fixture(scope="module")
def task():
    return load_task("digits", classes=4)


@pytest.fixture(scope="module")
def probe(task):
    return task.validation.images[:40].float().div(255)


@pytest.fixture(scope="module")
def box(task):
    classifier = make_classifier(
        "mlp-16", class_names=task.class_names, input_shape=SHAPE, mean=[0.3], std=[0.4], seed=0
    )
    with torch.no_grad():
        classifier.net[-1].weight.mul_(30)  # sure of its answers, as a trained one is
    return LocalBlackBox("mlp", classifier)


def app_of(box, task, **settings):
    return create_app(box, class_names=task.class_names, input_shape=SHAPE, **settings)


@pytest.fixture(scope="module")
def url(box, task, serving):
    with serving(app_of(box, task, max_images=64)) as url:
        yield url


def post(url, images, path=TENSORS_PATH, **headers):
    content = save({"images": images}) if path == TENSORS_PATH else images
    return httpx.post(url + path, content=content, headers=headers)


# --- what it answers


def test_it_says_what_is_served(url, task):
    assert httpx.get(url + MODEL_PATH).json() == {
        "name": "teacher",
        "classes": list(task.class_names),
        "input_shape": [1, 8, 8],
        "access": "full",
        "max_images": 64,
    }


def test_tensors_are_answered_with_the_same_bits(url, box, probe):
    for images in (probe, (probe * 255).round().to(torch.uint8)):
        response = post(url, images)
        assert response.status_code == 200
        assert torch.equal(load(response.content)["log_probs"], box.log_probs(probe))


def test_json_is_answered_with_probabilities_and_names(url, box, task, probe):
    answer = httpx.post(url + ANSWERS_PATH, json={"images": probe[:5].tolist()}).json()
    expected = box.log_probs(probe[:5])
    assert torch.equal(torch.tensor(answer["probabilities"], dtype=torch.float64), expected.double().exp())
    assert answer["predicted"] == [task.class_names[row] for row in expected.argmax(1)]
    assert answer["classes"] == list(task.class_names)


def test_what_can_be_asked_is_described(url):
    described = httpx.get(url + "/openapi.json").json()
    assert {MODEL_PATH, ANSWERS_PATH, TENSORS_PATH} <= set(described["paths"])
    assert "requestBody" in described["paths"][ANSWERS_PATH]["post"]


@pytest.mark.parametrize("name", OUTPUT_DEFENCES)
def test_every_output_defence_is_served_to_the_bit(name, box, task, probe, serving):
    defended = defend(box, [OUTPUT_DEFENCES[name]()], task)
    with serving(app_of(defended, task)) as url:
        response = post(url, probe)
        assert torch.equal(load(response.content)["log_probs"], defended.log_probs(probe))
        said = httpx.get(url + MODEL_PATH).json()["access"]
        assert said.partition(":")[0] == defended.access
        remote = open_black_box(url, class_names=task.class_names, probe=probe)
        assert remote.access == defended.access
        assert torch.equal(remote.log_probs(probe), defended.log_probs(probe))
        plain = httpx.post(url + ANSWERS_PATH, json={"images": probe[:3].tolist()}).json()["probabilities"]
        assert all(math.isfinite(value) for row in plain for value in row), "an exact zero is 0 in JSON"


def test_many_clients_at_once_have_the_answers_that_one_has(url, box, probe):
    expected = box.log_probs(probe)

    def ask(row):
        return load(post(url, probe[row : row + 1]).content)["log_probs"]

    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(ask, range(len(probe))))
    torch.testing.assert_close(torch.cat(rows), expected, atol=1e-4, rtol=1e-4)


# --- what it refuses


@pytest.mark.parametrize(
    ("images", "status", "words"),
    [
        (torch.zeros(2, 1, 4, 4), 422, "images have shape (2, 1, 4, 4), must have (n, 1, 8, 8)"),
        (torch.zeros(0, *SHAPE), 422, "images have shape (0, 1, 8, 8)"),
        (torch.tensor(0.5), 422, "images have shape ()"),
        (torch.full((2, *SHAPE), 1.5), 422, "image 0 holds values that are not in [0, 1]; divide bytes by 255"),
        (torch.stack([torch.zeros(SHAPE), torch.full(SHAPE, math.nan)]), 422, "image 1 holds values"),
        (torch.zeros(2, *SHAPE).double(), 422, "images are torch.float64, must be uint8 (0 to 255) or float32"),
        (torch.zeros(65, *SHAPE), 413, "65 images in one request, may be at most 64"),
        (torch.zeros(9999, *SHAPE), 413, "bytes that a request may have; ask about at most 64 images at once"),
    ],
)
def test_wrong_tensors_are_refused_in_a_sentence(url, images, status, words):
    response = post(url, images)
    assert response.status_code == status
    assert words in response.json()["detail"]


def header(shape):
    about = json.dumps({"images": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}).encode()
    return len(about).to_bytes(8, "little") + about


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        (TENSORS_PATH, b"", "0 bytes that are no safetensors file"),
        (TENSORS_PATH, b"nonsense" * 9, "72 bytes that are no safetensors file"),
        (TENSORS_PATH, save({"pictures": torch.zeros(1)}), "no tensor 'images' among pictures"),
        (ANSWERS_PATH, b"", "the body must be JSON"),
        (ANSWERS_PATH, b"[1, 2]", "the body must be JSON"),
        (ANSWERS_PATH, b'{"pictures": []}', "the body must be JSON"),
        (ANSWERS_PATH, b'{"images": [[1], [1, 2]]}', "nested lists of numbers, of equal lengths"),
        (ANSWERS_PATH, b'{"images": "all"}', "the body must be JSON"),
        (ANSWERS_PATH, b'{"images": [[1' + b"0" * 400 + b"]]}", "the body must be JSON"),
        (TENSORS_PATH, header([2**64 - 1, 0]), "that are no safetensors file"),
        (TENSORS_PATH, header([0, 2**40, 2**40]), "that are no safetensors file"),
        (ANSWERS_PATH, b'{"images": ' + b"[" * 2000 + b"]" * 2000 + b"}", "the body must be JSON"),
        (ANSWERS_PATH, b'{"images": [[[0]]]}', "images have shape (1, 1, 1), must have (n, 1, 8, 8)"),
    ],
)
def test_wrong_bodies_are_refused_in_a_sentence(url, path, content, words):
    response = httpx.post(url + path, content=content)
    assert response.status_code == 422
    assert words in response.json()["detail"]


def test_no_more_is_read_than_a_request_may_have(url):
    def endless():
        for _ in range(10_000):
            sent.append(len(sent))
            yield bytes(2**16)

    sent = []
    address = url.removeprefix("http://").partition(":")
    with socket.create_connection((address[0], int(address[2]))) as connection:
        head = f"POST {TENSORS_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode())
        connection.settimeout(30)
        with contextlib.suppress(ConnectionError):
            for part in endless():
                connection.sendall(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                if len(sent) == 100:
                    break
        with contextlib.suppress(ConnectionError):
            assert b" 413 " in connection.recv(200)


def test_a_body_that_does_not_come_is_not_waited_for(box, task, serving, monkeypatch):
    monkeypatch.setattr(service, "READING", 0.2)
    with serving(app_of(box, task)) as url:
        address = url.removeprefix("http://").partition(":")
        with socket.create_connection((address[0], int(address[2]))) as connection:
            connection.sendall(f"POST {TENSORS_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n".encode())
            connection.settimeout(30)
            assert b" 408 " in connection.recv(200)


def test_json_is_bounded_by_what_it_takes_in_memory(task, serving, monkeypatch):
    monkeypatch.setattr(service, "MAX_JSON", 64 * service.CHARACTERS * 3)

    class Uniform(BlackBox):
        name, fingerprint = "uniform", "u" * 64

        def log_probs(self, images):
            return torch.full((len(images), 4), 0.25).log()

    with serving(app_of(Uniform(), task)) as url:
        assert httpx.post(url + ANSWERS_PATH, json={"images": torch.rand(2, *SHAPE).tolist()}).status_code == 200
        refused = httpx.post(url + ANSWERS_PATH, json={"images": torch.rand(99, *SHAPE).tolist()})
    assert refused.status_code == 413
    assert refused.json()["detail"].endswith("; ask about at most 3 images at once")


def test_large_images_make_small_requests(task):
    with_room = create_app(
        open_black_box(
            lambda images: images.flatten(1)[:, :2].softmax(1), class_names=("a", "b"), probe=torch.rand(2, 3, 9, 9)
        ),
        class_names=("a", "b"),
        input_shape=(3, 2048, 2048),
    )
    model = next(route for route in with_room.routes if getattr(route, "path", "") == MODEL_PATH)
    assert model.endpoint()["max_images"] == 1


def test_waiting_requests_end_with_the_server(box, task, probe):
    asked, leave = threading.Semaphore(0), threading.Event()

    class Slow(BlackBox):
        name, fingerprint, times = "slow", "s" * 64, 0

        def log_probs(self, images):
            self.times += 1
            asked.release()
            assert leave.wait(30)
            return box.log_probs(images)

    slow = Slow()
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app_of(slow, task), log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    with ThreadPoolExecutor(4) as pool:
        posts = [pool.submit(post, url, probe) for _ in range(4)]
        assert asked.acquire(timeout=30)
        server.should_exit = True
        with contextlib.suppress(httpx.HTTPError):
            [waited.result() for waited in posts[1:]]
        leave.set()
        thread.join(timeout=30)
        for waited in posts:
            with contextlib.suppress(httpx.HTTPError):
                waited.result()
    listening.close()
    assert not thread.is_alive()
    assert slow.times == 1, "those that waited were not answered after the end"


def test_too_many_at_once_are_told_to_come_later(box, task, probe, serving, monkeypatch):
    monkeypatch.setattr(service, "WAITING", 1)
    entered, leave = threading.Event(), threading.Event()

    class Slow(BlackBox):
        name, fingerprint = "slow", "s" * 64

        def log_probs(self, images):
            entered.set()
            assert leave.wait(30)
            return box.log_probs(images)

    with serving(app_of(Slow(), task)) as url, ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, url, probe)
        assert entered.wait(30)
        second = post(url, probe)
        leave.set()
        assert first.result().status_code == 200
    assert second.status_code == 503
    assert second.headers["Retry-After"] == "2"
    assert "1 requests are waiting already" in second.json()["detail"]


def test_a_wrong_number_of_images_is_refused(box, task):
    with pytest.raises(InputError, match="a request may hold 0 images, must be at least 1"):
        app_of(box, task, max_images=0)


# --- who may ask, and how much


def test_only_those_with_a_key_are_answered(box, task, probe, serving, tmp_path):
    (tmp_path / "keys").write_text(f"ann {KEY}\n")
    with serving(app_of(box, task, clients=read_keys(tmp_path / "keys"))) as url:
        for path in (TENSORS_PATH, ANSWERS_PATH):
            response = httpx.post(url + path, content=b"")
            assert response.status_code == 401
            assert response.headers["WWW-Authenticate"] == "Bearer"
        assert post(url, probe, Authorization=f"Bearer {KEY}").status_code == 200
        assert httpx.get(url + MODEL_PATH).status_code == 200, "what is served is no secret"


def test_images_are_counted_and_not_requests(box, task, probe, serving):
    with serving(app_of(box, task, meter=Meter(["50/hour", "1000/day"]))) as url:
        assert httpx.get(url + MODEL_PATH).json()["max_images"] == 50
        assert post(url, probe[:30]).status_code == 200
        refused = post(url, probe[:21])
        assert refused.status_code == 429
        assert "may ask about 50/hour and 1000/day images" in refused.json()["detail"]
        assert 1 <= int(refused.headers["Retry-After"]) <= 3600
        assert post(url, probe[:20]).status_code == 200, "what was refused was not counted"
        assert post(url, probe[:1]).status_code == 429


def test_a_request_that_could_never_pass_is_told_so(box, task, probe, serving):
    with serving(app_of(box, task, meter=Meter(["5/hour"]))) as url:
        response = post(url, probe[:6])
        assert response.status_code == 413
        assert "6 images in one request, may be at most 5" in response.json()["detail"]


def test_wrong_requests_are_not_counted(box, task, probe, serving):
    with serving(app_of(box, task, meter=Meter(["40/hour"]))) as url:
        assert post(url, torch.full((2, *SHAPE), 7.0)).status_code == 422
        assert post(url, probe).status_code == 200


def test_each_client_has_his_own_count():
    meter = Meter(["3/hour"])
    assert meter.seconds_to_wait("ann", 3) == 0
    assert meter.seconds_to_wait("ann", 1) > 0
    assert meter.seconds_to_wait("bob", 3) == 0


def test_a_rate_that_is_said_twice_is_one():
    assert Meter(["4/minute", "4/minute"]).seconds_to_wait("ann", 3) == 0
    assert len(Meter(["4/minute; 4/minute; 5/hour"]).rates) == 2


@pytest.mark.parametrize("rate", ["fast", "10", "10/fortnight", "", "-3/minute"])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(InputError, match=f"rate {rate!r} is none; write it as 1000/minute"):
        Meter([rate])


def test_a_rate_of_nothing_is_refused():
    with pytest.raises(InputError, match="rate '0/minute' lets nothing through; allow at least 1 image"):
        Meter(["0/minute"])


def test_a_store_that_is_lost_is_no_reason_to_fail(box, task, probe, serving, monkeypatch):
    meter = Meter(["40/hour"])

    def lost(*_, **__):
        raise StorageError(ConnectionError("gone"))

    monkeypatch.setattr(meter._limiter, "test", lost)
    with serving(app_of(box, task, meter=meter)) as url:
        response = post(url, probe)
    assert response.status_code == 503
    assert "the store of the counts does not answer; come later" in response.json()["detail"]


def test_what_another_server_counted_in_between_is_seen(monkeypatch):
    meter = Meter(["3/hour"])
    monkeypatch.setattr(meter._limiter, "test", lambda *_, **__: True)
    assert [meter.seconds_to_wait("ann", 2) > 0 for _ in range(2)] == [False, True]


@pytest.mark.parametrize("store", ["nowhere", "redis://:SECRET@127.0.0.1:1", "carrier-pigeon://", "async+memory://"])
def test_a_store_of_rates_that_cannot_be_used_is_refused(store):
    with pytest.raises(InputError, match=r"the store of rates .* cannot be used") as error:
        Meter(["1/minute"], store)
    assert "SECRET" not in str(error.value)


# --- and back: the box at a URL


def test_a_remote_box_has_the_answers_of_the_local_one(url, box, task, probe):
    remote = open_black_box(url, class_names=task.class_names, probe=probe)
    assert isinstance(remote, RemoteBlackBox)
    images = torch.rand(150, *SHAPE, generator=torch.Generator().manual_seed(0))  # more than a request may hold
    expected = torch.cat([box.log_probs(part) for part in images.split(64)])
    assert torch.equal(remote.log_probs(images), expected)
    again = open_black_box(url, class_names=task.class_names, probe=probe)
    assert again.fingerprint == remote.fingerprint


def test_another_teacher_at_the_same_url_is_another_box(box, task, probe, serving):
    class Switching(BlackBox):
        name, fingerprint, softer = "switching", "s" * 64, False

        def log_probs(self, images):
            return torch.log_softmax(box.log_probs(images) * (0.5 if self.softer else 1.0), 1)

    switching = Switching()
    with serving(app_of(switching, task)) as url:
        first = open_black_box(url, class_names=task.class_names, probe=probe)
        switching.softer = True
        second = open_black_box(url, class_names=task.class_names, probe=probe)
    assert first.name == second.name
    assert first.fingerprint != second.fingerprint


def test_what_a_server_leaves_out_is_known_from_it(box, task, probe, serving):
    limited = open_black_box(box, class_names=task.class_names, probe=probe, access=TopK(2))
    with serving(app_of(limited, task)) as url:
        for access in (FULL, TopK(2)):
            remote = open_black_box(url, class_names=task.class_names, probe=probe, access=access)
            assert str(remote.policy) == "top-k:2"
            assert torch.equal(remote.log_probs(probe), limited.log_probs(probe))
        with pytest.raises(InputError, match="answers with access 'top-k:2', not 'top-k:3'; name that one, or none"):
            open_black_box(url, class_names=task.class_names, probe=probe, access=TopK(3))


def test_full_answers_can_be_limited_on_this_side(url, box, task, probe):
    remote = open_black_box(url, class_names=task.class_names, probe=probe, access=TopK(1))
    assert torch.equal(remote.log_probs(probe), TopK(1).apply(box.log_probs(probe)))


def test_nobody_in_particular_is_everybody():
    assert Clients({}).named("Bearer whatever", "10.1.1.1") == "10.1.1.1"
