from __future__ import annotations

from model.positions import first_picture, latent_of, pictures


def test_pictures_of_latent_frames() -> None:
    assert [first_picture(f) for f in range(4)] == [0, 1, 5, 9]
    assert [pictures(f) for f in range(4)] == [1, 4, 4, 4]
    covered = [first_picture(f) + i for f in range(200) for i in range(pictures(f))]
    assert covered == list(range(797))
    assert all(latent_of(first_picture(f) + i) == f for f in range(200) for i in range(pictures(f)))
