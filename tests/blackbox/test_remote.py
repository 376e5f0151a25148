"""A teacher behind a URL: what is waited for, what is tried again, what is refused."""

import gzip
import json
import pickle
import time

import pytest
import torch
from fastapi import FastAPI, Request, Response
from safetensors.torch import save

from undistill.blackbox import MODEL_PATH, TENSORS_PATH, open_black_box, remote, unpack_images
from undistill.errors import InputError

NAMES = ("a", "b", "c")
PROBE = torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0))
ABOUT = {
    "name": "t",
    "classes": list(NAMES),
    "input_shape": [1, 2, 2],
    "access": "full",
    "max_images": 4,
}
UNIFORM = torch.full((1, 3), 1 / 3).log()


class Script:
    """A server that gives the scripted responses first, and then answers everything with equal probabilities."""

    def __init__(self, *first, about=ABOUT):
        self.first, self.about, self.headers, self.sizes = list(first), about, [], []
        self.app = FastAPI()

        @self.app.get(MODEL_PATH)
        def model():
            return self.about

        @self.app.post(TENSORS_PATH)
        async def answers(request: Request):
            self.headers.append(request.headers)
            images = unpack_images(await request.body())
            self.sizes.append(len(images))
            if self.first:
                made = self.first.pop(0)
                return made if isinstance(made, Response) else Response(made)
            return Response(save({"log_probs": UNIFORM.repeat(len(images), 1)}))


def refused(serving, app, words):
    """Opening what ``app`` serves is refused in these words."""
    with serving(app) as url, pytest.raises(InputError, match=words):
        opened(url)


def opened(url, **settings):
    return open_black_box(url, class_names=NAMES, probe=PROBE, **settings)


@pytest.fixture
def slept(monkeypatch):
    """Seconds that were slept, without sleeping them."""
    seconds = []
    monkeypatch.setattr(remote, "_sleep", seconds.append)
    return seconds


@pytest.fixture
def no_key(monkeypatch):
    monkeypatch.delenv("UNDISTILL_API_KEY", raising=False)


# --- what is sent


def test_images_pass_the_wire_as_they_are():
    grey = torch.arange(256, dtype=torch.uint8).float().div(255).reshape(4, 64)
    assert torch.equal(remote.unpack_images(remote.pack_images(grey)), grey)
    assert len(remote.pack_images(grey)) < 256 + 128, "whole grey levels are sent as bytes"
    mixed = 0.3 * grey + 0.7 * grey.flip(0)
    assert torch.equal(remote.unpack_images(remote.pack_images(mixed)), mixed)


def test_no_more_images_are_asked_at_once_than_the_server_allows(serving):
    script = Script()
    with serving(script.app) as url:
        box = opened(url)
        script.sizes.clear()
        assert box.log_probs(PROBE.repeat(2, 1, 1, 1)).shape == (12, 3)
    assert script.sizes == [4, 4, 4]


def test_the_key_is_sent_and_kept_nowhere(serving, monkeypatch):
    monkeypatch.setenv("UNDISTILL_API_KEY", "the-key-of-a-client")
    script = Script()
    with serving(script.app) as url:
        box = opened(url)
    assert script.headers[-1]["Authorization"] == "Bearer the-key-of-a-client"
    assert b"the-key-of-a-client" not in pickle.dumps(box)


def test_it_can_be_sent_to_another_process(serving):
    with serving(Script().app) as url:
        box = pickle.loads(pickle.dumps(opened(url)))
        assert torch.equal(box.log_probs(PROBE), UNIFORM.repeat(6, 1))


# --- names


def test_it_is_called_after_its_address(serving):
    with serving(Script().app) as url:
        port = url.rpartition(":")[2]
        assert opened(url + "/").name == f"127.0.0.1-{port}"
        assert opened(url, name="theirs").name == "theirs"


@pytest.mark.parametrize(
    "url", ["http://", "https:///path", "http://host:port", "http://u:SECRET@host", "http://host/?a=1", "http://[::1"]
)
def test_what_is_no_url_of_a_server_is_refused(url):
    with pytest.raises(InputError, match=r"write http://HOST:PORT") as error:
        opened(url)
    assert "SECRET" not in str(error.value)


@pytest.mark.parametrize("url", ["http://a..b", f"http://{'a' * 70}.org", "http://xn--a:1", "HTTP://127.0.0.1:99999"])
def test_what_cannot_be_asked_is_refused_at_once(url, slept):
    with pytest.raises(InputError, match=r"cannot be asked|write http://HOST:PORT"):
        opened(url)
    assert slept == []


# --- what is waited for, and tried again


FAR = "Mon, 01 Jan 2024 00:00:00 +9999999999999"  # a date that no calendar holds


def busy(status, **headers):
    return Response(b'{"detail": "later, please"}', status, headers)


def test_a_server_that_limits_is_waited_for_as_long_as_it_says(serving, slept, no_key):
    script = Script(busy(429, **{"Retry-After": "7"}), busy(429, **{"Retry-After": "2"}), busy(429))
    with serving(script.app) as url:
        box = opened(url)
    assert slept == [7, 2, 1]
    assert torch.equal(box.probe, PROBE)


@pytest.mark.parametrize(
    ("said", "words"), [("86400", "86,400 s"), ("inf", "inf s"), ("Fri, 01 Jan 2100 00:00:00 GMT", r"[\d,]+ s")]
)
def test_a_long_wait_is_left_to_the_user(serving, slept, said, words):
    refused(
        serving,
        Script(busy(429, **{"Retry-After": said})).app,
        rf"answers no more images for {words} \(later, please\)",
    )


@pytest.mark.parametrize("said", ["0", "-5", "nan", "1e-9", "soon", "Wed, 21 Oct 2015 07:28:00 GMT", FAR])
def test_a_server_is_never_stormed(serving, slept, said):
    with serving(Script(busy(429, **{"Retry-After": said}), busy(503, **{"Retry-After": said})).app) as url:
        opened(url)
    assert slept == [1, 1]


def test_many_short_waits_are_a_long_one(serving, slept):
    refused(serving, Script(*[busy(429, **{"Retry-After": "250"})] * 5).app, "answers no more images for 250 s")
    assert slept == [250, 250]


def test_a_server_that_starts_is_asked_again(serving, slept):
    script = Script(busy(503), busy(502), busy(504))
    with serving(script.app) as url:
        opened(url)
    assert slept == list(remote.PAUSES)


def test_at_last_it_gives_up(serving, slept):
    refused(
        serving,
        Script(*[busy(503) for _ in range(4)]).app,
        "answered 503: later, please, 4 times in a row; see that it is running",
    )


def test_what_cannot_be_reached_is_said(slept):
    before = time.monotonic()
    with pytest.raises(InputError, match=r"http://127.0.0.1:1 cannot be reached \(.*\), 4 times in a row"):
        opened("http://127.0.0.1:1")
    assert slept == list(remote.PAUSES)
    assert time.monotonic() - before < 60


def test_what_is_refused_is_not_tried_again(serving, slept):
    script = Script(busy(403))
    refused(serving, script.app, "answered 403: later, please")
    assert not slept


def test_a_missing_key_is_said(serving, no_key):
    refused(serving, Script(busy(401)).app, "only those who have a key that it knows; put yours into the environment")


@pytest.mark.parametrize("key", ["SECRET-KEY\u00fc", "SECRET KEY", "SECRET\tKEY"])
def test_a_key_that_cannot_be_sent_is_not_repeated(serving, monkeypatch, key):
    monkeypatch.setenv("UNDISTILL_API_KEY", key)
    with (
        serving(Script().app) as url,
        pytest.raises(InputError, match="UNDISTILL_API_KEY holds characters that") as error,
    ):
        opened(url)
    assert "SECRET" not in str(error.value)


def test_the_end_of_a_line_is_no_part_of_a_key(serving, monkeypatch):
    monkeypatch.setenv("UNDISTILL_API_KEY", "the-key\n")
    script = Script()
    with serving(script.app) as url:
        opened(url)
    assert script.headers[-1]["Authorization"] == "Bearer the-key"


# --- what it must be


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"classes": ["a", "b"]}, "has 2 classes, the task has 3; choose the task it was trained for"),
        ({"classes": ["c", "b", "a"]}, "has the task's classes in another order"),
        ({"input_shape": [3, 32, 32]}, r"takes inputs of shape \[3, 32, 32\], the task has \[1, 2, 2\]"),
        ({"access": "everything"}, "is no teacher that 'undistill serve' serves"),
        ({"max_images": "many"}, "is no teacher that 'undistill serve' serves"),
        ({"input_shape": [10**400]}, "takes inputs of shape"),
        ({"classes": None}, "is no teacher that 'undistill serve' serves"),
    ],
)
def test_a_server_of_something_else_is_refused(serving, about, words):
    refused(serving, Script(about=ABOUT | about).app, words)


@pytest.mark.parametrize(
    "page",
    [
        Response(b"[" * 200_000),
        Response(b"x" * 2**23),
        Response(b'{"max_images": 1e400, "input_shape": [1, 2, 2], "classes": [], "access": "full"}'),
        Response(b"no gzip", headers={"Content-Encoding": "gzip"}),
        Response(gzip.compress(bytes(2**25)), headers={"Content-Encoding": "gzip"}),
        Response(b"[" * 200_000, 500),
        Response(b"\xff\xfe", 500, {"Content-Type": "text/html; charset=idna"}),
    ],
)
def test_whatever_a_stranger_says_is_one_sentence(serving, page):
    app = FastAPI()

    @app.get(MODEL_PATH)
    def model():
        return page

    with serving(app) as url, pytest.raises(InputError) as error:
        opened(url)
    assert len(str(error.value)) < 600


def test_a_stranger_does_not_write_on_the_terminal(serving):
    loud = Response(json.dumps({"detail": "\x1b[2J\x1b[1;32mno leak found\n" * 1_000}).encode(), 403)
    with (
        serving(Script(loud).app) as url,
        pytest.raises(InputError, match=r"answered 403: \[2J\[1;32mno leak") as error,
    ):
        opened(url)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 400


def test_what_a_server_says_of_its_access_holds(serving):
    with serving(Script(about=ABOUT | {"access": "top-k:1"}).app) as url:
        assert str(opened(url).policy) == "top-k:1"


def test_any_other_page_is_refused(serving):
    app = FastAPI()

    @app.get(MODEL_PATH)
    def model():
        return Response("<html>hello</html>")

    refused(serving, app, "write a function that asks it, and name that as package.module:callable")


def header(changes):
    about = json.dumps({"log_probs": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} | changes}).encode()
    return len(about).to_bytes(8, "little") + about


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>", "answered 6 bytes that are no safetensors file"),
        (save({"probs": torch.zeros(4, 3)}), "answered no tensor 'log_probs' among probs"),
        (save({"log_probs": UNIFORM}), r"of shape \(1, 3\) to 4 images, must answer float32 of shape \(4, 3\)"),
        (save({"log_probs": UNIFORM.double().repeat(4, 1)}), "answered torch.float64 of shape"),
        (save({"log_probs": torch.full((4, 3), torch.nan)}), "4 of 4 rows hold NaN"),
        (save({"log_probs": torch.zeros(4, 3)}), "do not sum to 1"),
        (b"x" * 5000, "answered more than the 4,144 bytes that an answer has"),
        (header({"shape": [2**64 - 1, 0]}), "that are no safetensors file"),
        (header({"shape": [0, 2**40, 2**40]}), "that are no safetensors file"),
    ],
)
def test_wrong_answers_are_refused(serving, content, words):
    refused(serving, Script(content).app, words)
