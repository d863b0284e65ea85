"""Images zoomed in and out (AugKD): which parts, which changes, and that each is taken back."""

from itertools import product

import pytest
import torch
from basicsr.utils.matlab_functions import imresize

from basicsr_clsd.models.views import Change, View, shrinking, zoomed_in, zoomed_out

SCALE, SIDE = 2, 6


@pytest.mark.parametrize('flags', product((False, True), repeat=4))
def test_every_change_is_taken_back_at_any_scale(flags):
    torch.manual_seed(0)
    change, image = Change(*flags), torch.rand(3, SIDE, SIDE)
    torch.testing.assert_close(change.undo(change.apply(image)), image)
    assert any(flags) == (not torch.equal(change.apply(image), image))
    # What a network that treats all positions and colours alike makes of the changed image, is that of the image.
    larger = change.undo(change.apply(image).repeat_interleave(2, -1).repeat_interleave(2, -2))
    torch.testing.assert_close(larger, image.repeat_interleave(2, -1).repeat_interleave(2, -2))


def test_changes_are_done_in_their_order():
    image = torch.arange(4.0).view(1, 2, 2) / 4
    assert Change(False, True, False, True).apply(image).flatten().tolist() == [0.25, 0.75, 0.0, 0.5]
    assert Change(True, False, True, False).apply(image).flatten().tolist() == [0.5, 0.25, 1.0, 0.75]


def hr(count=4, seed=0):
    return torch.rand(count, 3, SCALE * SIDE, SCALE * SIDE, generator=torch.Generator().manual_seed(seed))


def test_parts_are_of_the_grid_and_distinct_and_the_teacher_is_given_them_as_they_are():
    view = View('zoom_in', 3, 0.5)
    images = zoomed_in(view, hr(), SCALE, 0, range(4))
    assert images.student.shape == images.teacher.shape == (12, 3, SIDE, SIDE) and images.label is None
    torch.testing.assert_close(images.restored(images.student), images.teacher)
    assert not torch.equal(images.student, images.teacher)
    for number, image in enumerate(hr()):
        grid = [image[:, top : top + SIDE, left : left + SIDE] for top in (0, SIDE) for left in (0, SIDE)]
        places = [
            next(place for place, part in enumerate(grid) if torch.equal(part, found))
            for found in images.teacher[3 * number : 3 * number + 3]
        ]
        assert len(set(places)) == 3


def test_draws_follow_from_seed_and_position_alone():
    view = View('zoom_in', 1, 0.5)
    whole = zoomed_in(view, hr(8), SCALE, 7, range(100, 108))
    half = zoomed_in(view, hr(8)[4:], SCALE, 7, range(104, 108))
    assert torch.equal(whole.student[4:], half.student) and whole.changes[4:] == half.changes
    assert zoomed_in(view, hr(8), SCALE, 8, range(100, 108)).changes != whole.changes
    assert zoomed_in(view, hr(8), SCALE, 7, range(108, 116)).changes != whole.changes


def test_changes_come_as_often_as_they_should():
    none = zoomed_in(View('zoom_in', 1, 0), hr(), SCALE, 0, range(4))
    assert none.student is none.teacher and not none.changes
    image = torch.zeros(1, 1, 2, 2).expand(2000, 1, 2, 2)
    changes = zoomed_in(View('zoom_in', 1, 0.3), image, SCALE, 0, range(2000)).changes
    for name in Change._fields:
        assert sum(getattr(change, name) for change in changes) / 2000 == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize('scale', [2, 3, 4])
def test_zooming_out_is_the_bicubic_of_the_field(scale):
    lq = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    images = zoomed_out(lq, shrinking(24, scale, torch.device('cpu')))
    assert images.label is lq and images.student is images.teacher and not images.changes
    inside = slice(2, -2)  # BasicSR mirrors at the border, older MATLAB repeats the last pixel
    for small, image in zip(images.student, lq, strict=True):
        wanted = imresize(image, 1 / scale)
        assert small.shape == wanted.shape
        torch.testing.assert_close(small[:, inside, inside], wanted[:, inside, inside], rtol=0, atol=1e-5)
