from collections import Counter

import numpy as np
import pytest
import torch

from reidlib.data.batches import Batches, IdentitySampler, ShuffleSampler, number_ids


@pytest.mark.parametrize("n_identities, n_images, sizes", [
    (6, 4, [24, 24]),       # both groups of each identity, one a batch
    (3, 8, [24, 24]),       # one group of each identity: three, three
    (4, 8, [32, 16]),       # four, and the two that are left
    (5, 8, [40]),           # the sixth identity alone has no negative
])
def test_identity_batches_are_p_times_k_and_cover_every_image(n_identities, n_images, sizes):
    ids = np.repeat(np.arange(6), 8)
    for seed in range(10):
        batches = IdentitySampler(ids, n_identities, n_images, seed).batches(0)
        assert [len(batch) for batch in batches] == sizes
        assert all(set(Counter(ids[batch]).values()) == {n_images} for batch in batches)
        assert len(set(np.concatenate(batches))) == sum(sizes)  # each image once


def test_what_is_left_out_of_an_epoch_is_of_one_identity():
    """Where an identity's groups come last, it is alone in the last batches."""
    ids, left_out = np.repeat(np.arange(6), 8), Counter()
    for seed in range(40):
        batches = IdentitySampler(ids, 3, 4, seed).batches(0)
        seen = Counter(np.concatenate(batches).tolist())
        missing = sorted(set(range(48)) - set(seen))
        assert max(seen.values()) == 1 and len(set(ids[missing])) <= 1
        left_out[len(missing)] += 1
    assert left_out.keys() == {0, 4} and left_out[0] > left_out[4]


def test_each_of_two_processes_gets_the_same_number_of_identities():
    ids = np.repeat(np.arange(7), 4)
    batches = IdentitySampler(ids, 4, 4, 0, n_processes=2).batches(0)
    assert [len(set(ids[batch])) for batch in batches] == [4, 2]  # and one is left out
    with pytest.raises(ValueError, match="3 identities a batch cannot be split evenly over 2"):
        IdentitySampler(ids, 3, 4, n_processes=2)


def test_a_process_gets_its_share_of_the_images_and_all_identities(make_images):
    """What happens to an image is the same whoever works on it."""
    def epoch(share):
        source = Batches(make_images(12, 8), torch.arange(12), ShuffleSampler(12, 6),
                         torch.device("cpu"), erasing=0.5, share=share)
        return list(source.epoch(1))

    halves = [epoch(lambda n: slice(0, n // 2)), epoch(lambda n: slice(n // 2, n))]
    for (images, ids), *shares in zip(epoch(lambda n: slice(0, n)), *halves, strict=True):
        assert torch.equal(images, torch.cat([own for own, _ in shares]))
        assert all(torch.equal(ids, labels) for _, labels in shares)


def test_identities_with_too_few_images_repeat_their_own():
    ids = np.array([0, 1, 1, 2, 2, 2, 2, 2])
    for batch in IdentitySampler(ids, 3, 4).batches(0):
        assert set(Counter(ids[batch]).values()) == {4}
    groups = IdentitySampler(ids, 3, 4)._split(np.array([3, 4, 5, 6, 7]), np.random.default_rng(0))
    assert groups.shape == (2, 4) and set(groups.flat) == {3, 4, 5, 6, 7}


def test_a_batch_always_has_a_negative():
    ids = np.array([0] * 40 + [1] * 4)
    batches = list(IdentitySampler(ids, 2, 4).batches(3))
    assert batches and all(len(set(ids[b])) == 2 for b in batches)
    with pytest.raises(ValueError, match="at least 2 identities, found 1"):
        IdentitySampler(np.zeros(5, int), 2, 2)


@pytest.mark.parametrize("make", [lambda seed: IdentitySampler(np.repeat(range(5), 4), 2, 2, seed),
                                  lambda seed: ShuffleSampler(20, 6, seed)])
def test_batches_depend_on_seed_and_epoch_alone(make):
    def first(sampler, epoch):
        return np.concatenate(list(sampler.batches(epoch))).tolist()

    sampler = make(1)
    assert first(sampler, 2) == first(sampler, 2) == first(make(1), 2)
    assert first(sampler, 2) != first(sampler, 3) and first(sampler, 2) != first(make(2), 2)


def test_shuffle_leaves_out_only_the_odd_batch():
    batches = list(ShuffleSampler(20, 6).batches(0))
    assert [len(b) for b in batches] == [6, 6, 6] and len(set(np.concatenate(batches))) == 18
    assert [len(b) for b in ShuffleSampler(4, 32).batches(0)] == [4]


def test_half_of_the_images_are_mirrored_and_labels_follow(make_images):
    images = make_images(40, 4)
    batches = Batches(images, torch.arange(40), ShuffleSampler(40, 8), torch.device("cpu"))
    mirrored = 0
    for batch, ids in batches.epoch(0):
        for image, i in zip(batch, ids, strict=True):
            plain = torch.equal(image, images[i])
            assert plain or torch.equal(image, images[i].flip(-1))
            mirrored += not plain
    assert 10 < mirrored < 30
    again = [batch for batch, _ in batches.epoch(0)]
    for (batch, _), same in zip(batches.epoch(0), again, strict=True):
        assert torch.equal(batch, same)


def test_erasing_paints_one_rectangle_of_its_own_into_its_share_of_the_images(make_images):
    images = make_images(200, 12).clamp(max=250)
    source = Batches(images, torch.arange(200), ShuffleSampler(200, 20), torch.device("cpu"),
                     erasing=0.5, fill=(255.0, 254.0, 253.0))
    painted = []
    for batch, ids in source.epoch(3):
        for image, i in zip(batch, ids, strict=True):
            kept = (image == images[i]).all() or (image == images[i].flip(-1)).all()
            mask = (image == torch.tensor([255, 254, 253]).view(3, 1, 1)).all(0)
            assert kept == (not mask.any())
            if mask.any():
                rows, columns = mask.any(1), mask.any(0)
                assert mask.sum() == rows.sum() * columns.sum()  # a rectangle
                painted.append((rows.nonzero()[0].item(), columns.nonzero()[0].item()))
    assert 70 < len(painted) < 130 and len(set(painted)) > 30
    again = [batch for batch, _ in source.epoch(3)]
    assert all(torch.equal(a, b) for a, (b, _) in zip(again, source.epoch(3), strict=True))


def test_rows_say_where_the_sampled_images_are(make_images):
    images = make_images(10, 4)
    rows = torch.tensor([9, 4, 2, 0])
    source = Batches(images, torch.arange(4), ShuffleSampler(4, 2), torch.device("cpu"), rows=rows)
    for batch, ids in source.epoch(0):
        for image, i in zip(batch, ids, strict=True):
            assert any(torch.equal(image, images[rows[i]].flip(f)) for f in ((), (-1,)))


def test_identities_are_numbered_in_sorted_order():
    numbers, names = number_ids(["b", "a", "10", "b"])
    assert names == ["10", "a", "b"] and numbers.tolist() == [2, 1, 0, 2]


def test_a_padded_image_is_moved_and_nothing_else():
    """Each image of a batch is its own window of the image with black around it."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(1, 256, (8, 3, 6, 4), dtype=np.uint8))
    batches = Batches(images, torch.arange(8), ShuffleSampler(8, 8), torch.device("cpu"), pad=2)
    corners = Counter()
    for epoch in range(6):
        (found, ids), = batches.epoch(epoch)
        assert torch.equal(found, next(iter(batches.epoch(epoch)))[0])
        for image, own in zip(found, images[ids], strict=True):
            padded = torch.zeros(3, 10, 8, dtype=torch.uint8)
            padded[:, 2:8, 2:6] = own
            places = [(y, x, flip) for y in range(5) for x in range(5) for flip in (False, True)
                      if torch.equal(image.flip(-1) if flip else image,
                                     padded[:, y:y + 6, x:x + 4])]
            assert len(places) == 1
            corners[places[0][:2]] += 1
    assert len(corners) > 15 and {y for y, _ in corners} == {x for _, x in corners} == set(range(5))


def test_cameras_come_with_their_images():
    images, cams = torch.zeros(8, 3, 4, 4, dtype=torch.uint8), torch.arange(4) + 10
    batches = Batches(images, torch.arange(4), ShuffleSampler(4, 4), torch.device("cpu"),
                      rows=torch.arange(4) * 2, cams=cams)
    (inputs, ids), = batches.epoch(0)
    assert torch.equal(inputs[1], ids + 10) and inputs[0].shape == (4, 3, 4, 4)
    half = Batches(images, torch.arange(4), ShuffleSampler(4, 4), torch.device("cpu"),
                   rows=torch.arange(4) * 2, cams=cams, share=lambda n: slice(0, n // 2))
    (inputs, ids), = half.epoch(0)
    assert torch.equal(inputs[1], ids[:2] + 10) and len(ids) == 4
