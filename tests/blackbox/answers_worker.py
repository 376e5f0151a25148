"""Two processes that want the same answers at the same time, from a black box that logs each call.

Arguments: the cache's folder and the file of the log, a line per call. The parent exits with the number of children
that got other answers than asked for directly.
"""

import os
import sys
import time
from pathlib import Path

import torch

from undistill.blackbox import AnswerCache, CallableBlackBox, Page
from undistill.blackbox.answers import ask
from undistill.tasks import load_task

EPOCHS = 3


class Logged:
    """Logits that depend on the image; slow enough for two to meet."""

    def __init__(self, log):
        self.log, self.logging = log, False

    def __call__(self, images):
        if self.logging:
            with self.log.open("a") as file:
                file.write(f"{len(images)}\n")
            time.sleep(0.05)
        return images.flatten(1)[:, 20:30] * 3


def child(cache, box, task, expected, start):
    os.read(start, 1)  # until the parent closes the other end
    right = all(torch.equal(cache.get(box, task, page), rows) for page, rows in expected.items())
    os._exit(0 if right else 1)


def main(folder, log):
    task = load_task("digits")
    function = Logged(log)
    box = CallableBlackBox("logged", function, 10, task.validation.images[:8].float() / 255)
    expected = {page: ask(box, task, page) for page in (Page("usual", 7, epoch) for epoch in range(EPOCHS))}
    function.logging = True
    reading, writing = os.pipe()
    children = []
    for _ in range(2):
        number = os.fork()
        if number == 0:
            os.close(writing)
            child(AnswerCache(folder), box, task, expected, reading)
        children.append(number)
    os.close(writing)
    return sum(os.waitpid(number, 0)[1] != 0 for number in children)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
