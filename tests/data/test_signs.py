"""The procedural signs: reproducible, disjoint, balanced, learnable."""

import numpy as np
import pytest

from guard.data import signs
from guard.data.faces import face
from guard.errors import InputError


def _keys(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_same_seed_same_pictures() -> None:
    """A set is a pure function of its seed, and a longer set starts with the shorter one."""
    short, long = signs.make(20, seed=7), signs.make(40, seed=7)
    assert np.array_equal(short.images, long.images[:20])
    assert np.array_equal(short.labels, long.labels[:20])


def test_no_picture_twice() -> None:
    """Sets of different seeds share no picture, and no set repeats one."""
    one, other = (signs.make(300, seed=seed) for seed in (1, 2))
    assert len(_keys(one.images) | _keys(other.images)) == 600


def test_form() -> None:
    """Pictures are uint8 (N, size, size, 3), of at least twelve classes."""
    made = signs.make(5, seed=0, size=48)
    assert made.images.shape == (5, 48, 48, 3)
    assert made.images.dtype == np.uint8
    assert made.classes == signs.CLASSES
    assert len(set(signs.CLASSES)) >= 12


def test_labels_are_balanced_and_unordered() -> None:
    """Every run of K pictures holds each class once, and not in a fixed order."""
    K = len(signs.CLASSES)
    labels = signs.make(4 * K, seed=3).labels.reshape(4, K)
    assert all(sorted(row) == list(range(K)) for row in labels)
    assert len({tuple(row) for row in labels}) == 4


def test_difficulty_scales_the_variation() -> None:
    """At difficulty 0 the sign is frontal and all pictures of a class agree in its middle."""

    def spread(difficulty: float) -> float:
        made = signs.make(200, seed=0, difficulty=difficulty)
        middle = made.images[made.labels == 0][:, 10:22, 10:22].astype(float)
        return float(middle.std(0).mean())

    assert spread(0.0) < 1 < spread(0.2) < spread(0.6)


def test_classes_differ_only_in_the_face() -> None:
    """No two faces look alike, so the label can be read off the picture."""
    faces = [np.asarray(face(name, 32)).astype(float) for name in signs.CLASSES]
    gaps = [np.abs(a - b).mean() for k, a in enumerate(faces) for b in faces[:k]]
    assert min(gaps) > 2


def test_not_separable_by_colour_alone() -> None:
    """The mean colour of a picture does not tell its class: pose, light and scenery matter."""
    train, test = (signs.make(800, seed=seed) for seed in (5, 6))
    means = [s.images.mean((1, 2)) for s in (train, test)]
    centres = np.stack([means[0][train.labels == k].mean(0) for k in range(len(train.classes))])
    nearest = ((means[1][:, None] - centres) ** 2).sum(2).argmin(1)
    assert (nearest == test.labels).mean() < 0.5


@pytest.mark.parametrize(
    "wrong",
    [{"count": -1}, {"seed": -1}, {"size": 4}, {"difficulty": -0.1}, {"difficulty": np.inf}],
)
def test_wrong_arguments_are_refused(wrong: dict[str, float]) -> None:
    """Negative or tiny arguments raise an InputError, not numpy's."""
    with pytest.raises(InputError):
        signs.make(**{"count": 1, "seed": 0, **wrong})  # type: ignore[arg-type]
