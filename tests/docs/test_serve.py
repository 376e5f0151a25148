"""The code on the page about serving runs."""

import re
from pathlib import Path

import torch

import undistill
from undistill.models import make_classifier, save_checkpoint

PAGE = (Path(__file__).parents[2] / "docs" / "serve.md").read_text()


def test_the_python_of_the_page_runs(tmp_path, monkeypatch, serving):
    ours, theirs = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    task = undistill.load_task("digits")
    teacher = make_classifier(
        "mlp-4", class_names=task.class_names, input_shape=task.input_shape, mean=[0.3], std=[0.4], seed=0
    )
    save_checkpoint(teacher, Path("teachers/cmim"))
    ran, audited = {}, {}
    monkeypatch.setattr("uvicorn.run", lambda app, **settings: ran.update(app=app, settings=settings))
    monkeypatch.setattr(undistill, "audit", lambda box, task, out: audited.update(box=box, out=out))
    names = {}
    exec(ours, names)
    assert ran["settings"] == {"port": 8000, "proxy_headers": False}
    with serving(ran["app"]) as url:
        exec(theirs.replace("http://localhost:8000", url), names)
        images = task.test.images[:5].float() / 255
        assert torch.equal(audited["box"].log_probs(images), names["box"].log_probs(images))
    assert (tmp_path / "served/cmim/defences.json").is_file()
