"""How an attacker asks: which views of which images, and how many answers that takes."""

from dataclasses import dataclass
from typing import Literal, get_args

from undistill.errors import InputError, unknown_name

QueryMode = Literal["fresh-views", "cached-views", "clean"]
PageKind = Literal["usual", "strong", "clean", "test"]


@dataclass(frozen=True)
class Page:
    """The images that are asked about at once: one view of all training images of a task.

    Args:
        kind: of view; ``"clean"`` is the images as they are, and ``"test"`` the images of the test split.
        seed: of the views; 0 for images as they are.
        crops: number of the view; 0 for images as they are.
    """

    kind: PageKind
    seed: int = 0
    crops: int = 0


@dataclass(frozen=True)
class QueryPlan:
    """What comes of :class:`Queries` for one attack on one data set.

    Args:
        images: how many of the training images are asked about.
        passes: how many views of each.
        clean: the one view is the image as it is, and the student sees augmented ones all the same.
        queries: answers that this takes.
    """

    images: int
    passes: int
    clean: bool
    queries: int

    @property
    def views(self) -> int | None:
        """How many different views the student sees; None for a new one every epoch."""
        return None if self.clean else self.passes

    def pages(self, seed: int, epoch: int, view: int) -> Page:
        """The page that belongs to an epoch and a view (0: the usual one, 1: the strong one)."""
        if self.clean:
            return Page("clean")
        return Page("usual" if view == 0 else "strong", seed, epoch % self.passes)


@dataclass(frozen=True)
class Queries:
    """How an attacker asks.

    - ``fresh-views``: about a new view of every image in every epoch, as the literature does.
    - ``cached-views``: about ``views`` views of every image; the student sees these in turn, with their own answers.
    - ``clean``: about every image as it is, once. The student sees new views with the answers to the clean image.

    A budget that does not suffice for this lowers the number of views, and, below one view of every image, the number
    of images (a stratified part of them). What is left of it after whole passes is not spent.

    Args:
        mode: one of the three.
        views: of each image, for ``cached-views``.
        budget: the largest number of images that may be asked about; every view counts. None: no limit.

    Example:
        >>> Queries(budget=2500).plan(images=1000, epochs=10, views=1, batch_size=50)
        QueryPlan(images=1000, passes=2, clean=False, queries=2000)
        >>> Queries("clean", budget=300).plan(images=1000, epochs=10, views=1, batch_size=50)
        QueryPlan(images=300, passes=1, clean=True, queries=300)
    """

    mode: QueryMode = "fresh-views"
    views: int = 8
    budget: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in get_args(QueryMode):
            raise unknown_name("query mode", self.mode, get_args(QueryMode))
        if self.views < 1:
            raise InputError(f"the number of cached views is {self.views}, must be at least 1")
        if self.budget is not None and self.budget < 1:
            raise InputError(f"the query budget is {self.budget} images, must be at least one batch")

    def plan(self, *, images: int, epochs: int, views: int, batch_size: int) -> QueryPlan:
        """What to ask about.

        Args:
            images: of the attacker.
            epochs: of the student's training.
            views: that the attack asks about at each step (see :class:`undistill.attacks.Attack`).
            batch_size: of the student's training.

        Raises:
            InputError: the budget is smaller than one batch.
        """
        clean = self.mode == "clean"
        views = 1 if clean else views
        passes = {"fresh-views": epochs, "cached-views": min(self.views, epochs), "clean": 1}[self.mode]
        if self.budget is not None:
            batch = min(batch_size, images) * views
            if self.budget < batch:
                raise InputError(
                    f"the query budget is {self.budget} images, but one batch of the training asks about {batch}; give "
                    "a larger budget or a smaller batch"
                )
            passes = min(passes, max(1, self.budget // (images * views)))
            images = min(images, self.budget // views)
        return QueryPlan(images, passes, clean, images * passes * views)
