"""``undistill defend`` and ``undistill serve``, and what comes of a server when it is audited."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import httpx
import pytest
import torch

from undistill.blackbox import defend, load_defended
from undistill.cli import main
from undistill.defences.output import CentroidServing, KeepTopK, LabelOnly
from undistill.models import load_checkpoint
from undistill.tasks import load_task

ON_DIGITS = ("--task", "digits", "--classes", "3")
KEY = "a-key-of-enough-characters"


@pytest.fixture(scope="module")
def served(teacher, tmp_path_factory):
    """The teacher behind two defences, saved by the command line."""
    folder = tmp_path_factory.mktemp("served") / "ce"
    words = ["defend", str(teacher), *ON_DIGITS, "--output-defence", "centroid", "--output-defence", "top-k:k=2"]
    assert main([*words, "--out", str(folder)]) == 0
    return folder


@contextmanager
def server(*words):
    """Serves in a process of its own; gives the URL and the lines that it printed first."""
    command = [sys.executable, "-m", "undistill", "serve", *map(str, words), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = []
    watchdog = threading.Timer(120, process.kill)  # a server that says nothing would be waited for
    watchdog.start()
    try:
        for line in process.stdout:
            lines.append(line)
            if found := re.search(r"Serving at (http://\S+)", line):
                yield found[1], "".join(lines)
                break
        else:
            raise AssertionError("".join(lines))
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[0]
        assert process.returncode == 0, rest
        assert rest == ""
    finally:
        watchdog.cancel()
        process.kill()


# --- defend


def test_a_defended_teacher_is_saved_and_said(run, teacher, tmp_path):
    words = ["defend", teacher, *ON_DIGITS, "--output-defence", "reverse-sigmoid:l1=0.1", "--out", tmp_path / "served"]
    status, out, err = run(*words)
    assert status == 0, err
    assert "Served behind reverse-sigmoid (gamma=0.2, l1=0.1): beta " in out
    assert f"Saved in {tmp_path / 'served'}; to serve it: undistill serve" in out
    assert load_defended(tmp_path / "served").name == "served+reverse-sigmoid"


def test_wrong_defending_is_refused(refused, teacher, served, tmp_path):
    to = ["--out", tmp_path / "served"]
    assert "no output defence is named; add --output-defence NAME" in refused("defend", teacher, *ON_DIGITS, *to)
    words = ["defend", teacher, *ON_DIGITS, "--output-defence", "label-only"]
    assert "is there already; name a new folder" in refused(*words, "--out", served)
    words = ["defend", teacher, "--task", "digits", "--output-defence", "label-only", *to]
    assert "has 3 classes, the task has 10" in refused(*words)
    words = ["defend", "http://ann:SECRET@127.0.0.1:1", *ON_DIGITS, "--output-defence", "label-only", *to]
    assert "a URL is no checkpoint folder, and nothing else can be saved with its defences" in refused(*words)
    words = ["defend", teacher, *ON_DIGITS, "--output-defence", "noise", *to]
    assert "the key of noise is the public default" in refused(*words)
    assert not (tmp_path / "served").exists()


def test_a_saved_teacher_is_named_like_any_other(run, refused, quick, served, tmp_path):
    status, out, err = run("measure", served, *ON_DIGITS, "--json")
    assert status == 0, err
    assert json.loads(out)["name"] == "ce+centroid+top-k on digits (test)"
    quick[1] = served
    status, out, err = run(*quick)
    assert status == 0, err
    card = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert card["teacher"]["name"] == "ce+centroid+top-k"
    assert [defence["name"] for defence in card["teacher"]["output_defences"]] == ["centroid", "top-k"]
    status, out, err = run("utility", served, *ON_DIGITS, "--json")
    assert status == 0, err
    assert [bool(group["served"]) for group in json.loads(out)["groups"]] == [False, True], "without them, and with"


def test_attacks_that_cannot_use_what_is_served_are_left_out(run, quick, teacher, tmp_path):
    words = ["defend", teacher, *ON_DIGITS, "--output-defence", "label-only", "--out", tmp_path / "served"]
    assert run(*words).status == 0
    quick[1] = tmp_path / "served"
    place = quick.index("--attack")
    del quick[place : place + 2]
    status, _, err = run(*quick, "--dry-run")
    assert status == 0, err


# --- serve


def test_a_teacher_is_served_until_ctrl_c(teacher):
    task = load_task("digits", classes=3)
    with server(teacher) as (url, said):
        assert "ce: the probabilities of all classes." in said
        assert "Who may ask: everybody who reaches this address; images: without a limit." in said
        assert httpx.get(url + "/v1/model").json()["name"] == "ce"
        images = task.test.images[:5].float().div(255)
        answer = httpx.post(url + "/v1/answers", json={"images": images.tolist()}).json()
        with torch.no_grad():
            expected = load_checkpoint(teacher)(images).softmax(1)
        torch.testing.assert_close(torch.tensor(answer["probabilities"]), expected)


def test_a_server_is_audited_like_the_folder_that_it_serves(run, quick, served, tmp_path, monkeypatch):
    (tmp_path / "keys").write_text(f"ann {KEY}\n")
    monkeypatch.setenv("UNDISTILL_API_KEY", KEY)
    quick[1] = served
    status, _, err = run(*quick[:-1], tmp_path / "local")
    assert status == 0, err
    with server(served, "--keys", tmp_path / "keys", "--rate", "100000/minute", "--name", "ours") as (url, said):
        assert "ce, behind centroid, behind top-k (k=2, renormalised=True): the largest probabilities" in said
        assert "Who may ask: ann; images: 100000/minute." in said
        assert httpx.get(url + "/v1/model").json()["name"] == "ours"
        quick[1] = url
        status, _, err = run(*quick[:-1], tmp_path / "remote")
        assert status == 0, err
        assert KEY not in "".join(
            path.read_text(errors="replace") for path in (tmp_path / "remote").rglob("*") if path.is_file()
        )
    local, remote = (json.loads((tmp_path / place / "audit.json").read_text()) for place in ("local", "remote"))
    assert [cell["knockoff"] for cell in remote["cells"]] == [cell["knockoff"] for cell in local["cells"]]
    assert remote["teacher"]["accuracy"] == local["teacher"]["accuracy"]


def test_a_header_is_no_new_client(teacher):
    images = {"images": torch.zeros(10, 1, 8, 8).tolist()}
    with server(teacher, "--rate", "10/hour") as (url, _):
        assert httpx.post(url + "/v1/answers", json=images).status_code == 200
        for name in ("1.2.3.4", "anybody"):
            headers = {"X-Forwarded-For": name, "Forwarded": f"for={name}"}
            assert httpx.post(url + "/v1/answers", json=images, headers=headers).status_code == 429


def test_a_label_server_is_measured_and_weighed_against_its_folder(run, teacher, tmp_path):
    words = ["defend", teacher, *ON_DIGITS, "--output-defence", "label-only", "--out", tmp_path / "served"]
    assert run(*words).status == 0
    with server(tmp_path / "served") as (url, said):
        assert "the predicted class alone" in said
        for named in (url, tmp_path / "served"):
            status, out, err = run("measure", named, *ON_DIGITS, "--json")
            assert status == 0, err
            assert (
                json.loads(out)["accuracy"] == json.loads(run("measure", teacher, *ON_DIGITS, "--json").out)["accuracy"]
            )
        status, _, err = run("utility", url, *ON_DIGITS)
        assert status == 0, err
        words = ["audit", url, tmp_path / "served", *ON_DIGITS, "--student", "mlp-4", "--epochs", "1", "--dry-run"]
        status, _, err = run(*words, "--out", tmp_path / "out")
        assert status == 0, err


def test_two_folders_of_one_teacher_are_two_teachers(run, teacher, tmp_path):
    for name, defence in (("one", "centroid"), ("two", "rounding")):
        words = ["defend", teacher, *ON_DIGITS, "--output-defence", defence, "--out", tmp_path / name]
        assert run(*words).status == 0
    status, out, err = run("utility", tmp_path / "one", tmp_path / "two", teacher, *ON_DIGITS, "--json")
    assert status == 0, err
    assert [bool(group["served"]) for group in json.loads(out)["groups"]] == [False, True, True]
    status, out, err = run("utility", tmp_path / "one", tmp_path / "two", *ON_DIGITS, "--json")
    assert status == 0, err
    assert [bool(group["served"]) for group in json.loads(out)["groups"]] == [False, True, True]
    words = ["audit", tmp_path / "one", tmp_path / "two", *ON_DIGITS, "--student", "mlp-4", "--epochs", "1"]
    status, _, err = run(*words, "--dry-run", "--out", tmp_path / "out")
    assert status == 0, err


def test_an_attack_can_be_made_on_a_url(run, teacher, tmp_path):
    with server(teacher) as (url, _):
        words = [
            "attack",
            url,
            *ON_DIGITS,
            "--attack",
            "kd",
            "--epochs",
            "1",
            "--batch-size",
            "25",
            "--student",
            "mlp-4",
        ]
        status, out, err = run(*words, "--out", tmp_path / "knockoff")
        assert status == 0, err
        assert f"kd on 127.0.0.1-{url.rpartition(':')[2]} with mlp-4" in out


def test_wrong_serving_is_refused(refused, teacher, tmp_path):
    (tmp_path / "empty").write_text("")
    assert "is not a checkpoint: it lacks model.json" in refused("serve", tmp_path)
    assert "holds no key" in refused("serve", teacher, "--keys", tmp_path / "empty")
    assert "rate 'fast' is none" in refused("serve", teacher, "--rate", "fast")
    assert "the store of rates 'nowhere' cannot be used" in refused("serve", teacher, "--rate-store", "nowhere")
    assert "--port is 99999, must be 1 to 65535" in refused("serve", teacher, "--port", 99999)
    assert "a request may hold 0 images" in refused("serve", teacher, "--max-images", 0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot listen at 127.0.0.1, port {port} (" in refused("serve", teacher, "--port", port)
    assert "cannot listen at 203.0.113.1" in refused("serve", teacher, "--host", "203.0.113.1")
    assert "--host is empty" in refused("serve", teacher, "--host", "")


def test_defences_of_the_two_ways_are_the_same(teacher, served):
    task = load_task("digits", classes=3)
    assert load_defended(served).fingerprint == defend(teacher, [CentroidServing(), KeepTopK(2)], task).fingerprint
    assert load_defended(served).fingerprint != defend(teacher, [CentroidServing(), LabelOnly()], task).fingerprint
